//! `CLIENT`: what a connection says about itself, what it may know of the others, and what it may do to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use henge_wire::resp::request::integer;

use super::aside::aside;
use super::client_filter::{Filter, text};
use crate::resp::call::{Call, ErrorReply, Flow};
use crate::resp::clients::Client;
use crate::resp::help;
use crate::resp::pause::Paused;
use crate::resp::pipeline::shown;
use crate::resp::session::Replies;
use crate::resp::table::{COMMANDS as ALL, Group, Keys, Permission, Run, Spec, flag};

/// What `LIST` and `KILL` choose clients by, behind what else the syntax has.
macro_rules! filters {
    ($before:literal) => {
        concat!(
            $before,
            "[ID client-id [client-id ...]] [TYPE <NORMAL | PRIMARY | MASTER | REPLICA | SLAVE | PUBSUB>] ",
            "[USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME <YES | NO>] [MAXAGE seconds] ",
            "[NAME client-name] [IDLE seconds] [FLAGS flags] [LIB-NAME library-name] ",
            "[LIB-VER library-version] [DB database] [CAPA capabilities] [IP ip] ",
            "[NOT-ID client-id [client-id ...]] ",
            "[NOT-TYPE <NORMAL | PRIMARY | MASTER | REPLICA | SLAVE | PUBSUB>] [NOT-USER username] ",
            "[NOT-ADDR ip:port] [NOT-LADDR ip:port] [NOT-NAME client-name] [NOT-FLAGS flags] ",
            "[NOT-LIB-NAME library-name] [NOT-LIB-VER library-version] [NOT-DB database] ",
            "[NOT-CAPA capabilities] [NOT-IP ip]"
        )
    };
}

/// From so many clients on, listing them is not for the data thread: a line takes about a microsecond.
const LISTED_AT_ONCE: usize = 128;

pub(in crate::resp) const COMMANDS: &[Spec] = &[Spec {
    name: "client",
    syntax: "",
    arity: -2,
    flags: 0,
    keys: Keys::NONE,
    permission: Permission::Connection,
    group: Group::Connection,
    since: "2.4.0",
    complexity: "Depends on the subcommand",
    summary: "Commands about connections",
    run: Run::Family(FAMILY),
}];

const FAMILY: &[Spec] = &[
    Spec {
        name: "client|id",
        syntax: "",
        arity: 2,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "5.0.0",
        complexity: "O(1)",
        summary: "Gives the number of the connection",
        run: Run::Handler(id),
    },
    Spec {
        name: "client|info",
        syntax: "",
        arity: 2,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Tells about the connection",
        run: Run::Handler(info),
    },
    Spec {
        name: "client|list",
        syntax: filters!(""),
        arity: -2,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Connection,
        since: "2.4.0",
        complexity: "O(N) where N is the number of connections",
        summary: "Tells about all connections, or those that pass the filters",
        run: Run::Handler(list),
    },
    Spec {
        name: "client|kill",
        syntax: filters!("ip:port | "),
        arity: -3,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Connection,
        since: "2.4.0",
        complexity: "O(N) where N is the number of connections",
        summary: "Ends the connections that pass the filters",
        run: Run::Handler(kill),
    },
    Spec {
        name: "client|setname",
        syntax: "connection-name",
        arity: 3,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "2.6.9",
        complexity: "O(1)",
        summary: "Names the connection",
        run: Run::Handler(set_name),
    },
    Spec {
        name: "client|getname",
        syntax: "",
        arity: 2,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "2.6.9",
        complexity: "O(1)",
        summary: "Gives the name of the connection",
        run: Run::Handler(get_name),
    },
    Spec {
        name: "client|setinfo",
        syntax: "LIB-NAME library-name | LIB-VER library-version",
        arity: 4,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "7.2.0",
        complexity: "O(1)",
        summary: "Says which library the client is",
        run: Run::Handler(set_info),
    },
    Spec {
        name: "client|reply",
        syntax: "ON | OFF | SKIP",
        arity: 3,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::NO_MULTI | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "3.2.0",
        complexity: "O(1)",
        summary: "Chooses which replies the client wants",
        run: Run::Handler(reply),
    },
    Spec {
        name: "client|no-evict",
        syntax: "ON | OFF",
        arity: 3,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Connection,
        since: "7.0.0",
        complexity: "O(1)",
        summary: "Notes that the connection is not to be closed for want of memory",
        run: Run::Handler(no_evict),
    },
    Spec {
        name: "client|no-touch",
        syntax: "ON | OFF",
        arity: 3,
        flags: flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY,
        keys: Keys::NONE,
        permission: Permission::Connection,
        group: Group::Connection,
        since: "7.2.0",
        complexity: "O(1)",
        summary: "Chooses whether reads of the connection count as uses of the keys",
        run: Run::Handler(no_touch),
    },
    Spec {
        name: "client|pause",
        syntax: "timeout [WRITE | ALL]",
        arity: -3,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Connection,
        since: "3.0.0",
        complexity: "O(1)",
        summary: "Has the commands of all clients wait, or those that write",
        run: Run::Handler(pause),
    },
    Spec {
        name: "client|unpause",
        syntax: "",
        arity: 2,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::UNPAUSED,
        keys: Keys::NONE,
        permission: Permission::Admin,
        group: Group::Connection,
        since: "6.2.0",
        complexity: "O(N) where N is the number of connections that wait",
        summary: "Ends a pause",
        run: Run::Handler(unpause),
    },
    help::definition("client|help", Group::Connection, "5.0.0"),
];

fn id(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let id = call.session.client.id;
    call.out.integer(i64::try_from(id).unwrap_or(i64::MAX));
    Ok(Flow::Done)
}

fn info(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    is_running(call);
    let line = line(&call.session.client, call.now_ms);
    call.out.verbatim(&line);
    Ok(Flow::Done)
}

/// Notes the command that runs, which is otherwise noted when it is done.
fn is_running(call: &Call<'_>) {
    if let Some(number) = ALL.number_of(call.spec) {
        call.session
            .client
            .last_command
            .store(number, Ordering::Relaxed);
    }
}

fn list(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let filter = Filter::parse(call, 2, false)?;
    is_running(call);
    let clients = call.local.shared.resp.clients.all();
    let (own, now_ms) = (call.session.client.id, call.now_ms);
    let listed = move || -> String {
        clients
            .iter()
            .filter(|client| filter.passes(client, own, now_ms))
            .map(|client| line(client, now_ms))
            .collect()
    };
    if call.local.shared.resp.clients.count() <= LISTED_AT_ONCE {
        call.out.verbatim(&listed());
        return Ok(Flow::Done);
    }
    call.eventually(async move |out| {
        out.verbatim(&aside(listed).await?);
        Ok(())
    })
}

/// One client as a line. The fields are Redis's; those about what does not exist here are what they are in Redis for a client
/// that makes no use of it.
fn line(client: &Client, now_ms: u64) -> String {
    let load = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
    let seconds_since = |then_ms: u64| now_ms.saturating_sub(then_ms) / 1000;
    let details = client.details.lock().clone();
    let command = match client.last_command.load(Ordering::Relaxed) {
        Client::NO_COMMAND => "NULL",
        number => ALL.entries()[usize::from(number)].spec.name,
    };
    let (pending, unsent) = (load(&client.pending_bytes), load(&client.unsent_bytes));
    format!(
        "id={id} addr={address} laddr={local_address} fd={descriptor} name={name} age={age} idle={idle} flags={flags} capa= \
         db=0 sub=0 psub=0 ssub=0 multi=-1 watch=0 qbuf={pending} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 \
         oll=0 omem={unsent} tot-mem={memory} events=r cmd={command} user={user} redir=-1 resp={protocol} \
         lib-name={lib_name} lib-ver={lib_version} tot-net-in={received} tot-net-out={sent} tot-cmds={commands}\n",
        id = client.id,
        address = client.address,
        local_address = client.local_address,
        descriptor = client.descriptor,
        name = text(&details.name),
        age = seconds_since(client.since_ms),
        idle = seconds_since(load(&client.active_ms)),
        flags = client.flags(),
        memory = pending + unsent,
        user = details.user(),
        protocol = client.protocol.load(Ordering::Relaxed),
        lib_name = text(&details.lib_name),
        lib_version = text(&details.lib_version),
        received = load(&client.received_bytes),
        sent = load(&client.sent_bytes),
        commands = load(&client.commands),
    )
}

/// `CLIENT KILL address`, of the time before filters, and the form with filters: the first fails if there is no such client,
/// the second counts those that there were.
fn kill(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let clients = call.local.shared.resp.clients.all();
    let own = call.session.client.id;
    let killed: Vec<Arc<Client>>;
    if call.words.len() == 3 {
        let address = call.word(2);
        killed = clients
            .into_iter()
            .filter(|client| client.address.to_string().as_bytes() == address)
            .collect();
        if killed.is_empty() {
            return Err(ErrorReply::fixed("ERR No such client"));
        }
        call.out.ok();
    } else {
        let filter = Filter::parse(call, 2, true)?;
        killed = clients
            .into_iter()
            .filter(|client| filter.passes(client, own, call.now_ms))
            .collect();
        call.out.count(killed.len());
    }
    let mut flow = Flow::Done;
    for client in killed {
        if client.id == own {
            // It reads that it was killed.
            flow = Flow::Close;
        } else {
            client.kill();
        }
    }
    Ok(flow)
}

/// What is in a name has to be told from what stands around it in a list.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// The most bytes of what a client says about itself. Every list of clients repeats it, and it lives as long as the
/// connection.
const MAX_NAME_BYTES: usize = 1_024;

fn check_length(name: &[u8]) -> Result<(), ErrorReply> {
    if name.len() > MAX_NAME_BYTES {
        let error = format!("ERR what a client is called has at most {MAX_NAME_BYTES} bytes");
        return Err(ErrorReply::new(error));
    }
    Ok(())
}

/// Whether a client may be called so.
pub(super) fn check_name(name: &[u8]) -> Result<(), ErrorReply> {
    check_length(name)?;
    if is_plain(name) {
        Ok(())
    } else {
        Err(ErrorReply::fixed(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ))
    }
}

fn set_name(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let name = call.word(2);
    check_name(name)?;
    call.session.client.details.lock().name = name.to_vec();
    call.out.ok();
    Ok(Flow::Done)
}

fn get_name(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let details = call.session.client.details.lock();
    if details.name.is_empty() {
        call.out.null();
    } else {
        call.out.bulk(&details.name);
    }
    Ok(Flow::Done)
}

fn set_info(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let (option, value) = (call.word(2), call.word(3));
    let is_name = call.is(2, "LIB-NAME");
    if !is_name && !call.is(2, "LIB-VER") {
        return Err(ErrorReply::new(format!(
            "ERR Unrecognized option '{}'",
            shown(option)
        )));
    }
    check_length(value)?;
    if !is_plain(value) {
        return Err(ErrorReply::new(format!(
            "ERR {} cannot contain spaces, newlines or special characters.",
            shown(option)
        )));
    }
    let mut details = call.session.client.details.lock();
    if is_name {
        details.lib_name = value.to_vec();
    } else {
        details.lib_version = value.to_vec();
    }
    drop(details);
    call.out.ok();
    Ok(Flow::Done)
}

/// Whether the second word is `ON`; it must be that or `OFF`.
fn is_on(call: &Call<'_>) -> Result<bool, ErrorReply> {
    match (call.is(2, "ON"), call.is(2, "OFF")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(ErrorReply::SYNTAX),
    }
}

/// The pipeline drops the reply where none is wanted.
fn reply(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let replies = &mut call.session.replies;
    if call
        .words
        .get(2)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"SKIP"))
    {
        if *replies != Replies::None {
            *replies = Replies::SkipNext;
        }
        return Ok(Flow::Done);
    }
    let is_on = is_on(call)?;
    call.session.replies = if is_on { Replies::All } else { Replies::None };
    if is_on {
        call.out.ok();
    }
    Ok(Flow::Done)
}

/// Nobody is closed for want of memory yet who has not filled it himself; the wish is noted and shown.
fn no_evict(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let is_on = is_on(call)?;
    call.session.client.no_evict.store(is_on, Ordering::Relaxed);
    call.out.ok();
    Ok(Flow::Done)
}

fn no_touch(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let is_on = is_on(call)?;
    call.session.no_touch = is_on;
    call.session.client.no_touch.store(is_on, Ordering::Relaxed);
    call.out.ok();
    Ok(Flow::Done)
}

fn pause(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    let paused = match call.words.get(3) {
        None => Paused::All,
        Some(_) if call.is(3, "ALL") => Paused::All,
        Some(_) if call.is(3, "WRITE") => Paused::Writes,
        Some(_) => {
            return Err(ErrorReply::fixed(
                "ERR CLIENT PAUSE mode must be WRITE or ALL",
            ));
        }
    };
    let until_ms = deadline(call, 2)?;
    let pause = &call.local.shared.resp.pause;
    pause.begin(until_ms, paused, call.now_ms);
    call.out.ok();
    Ok(Flow::Done)
}

/// When a time-out in milliseconds from now ends.
pub(super) fn deadline(call: &Call<'_>, index: usize) -> Result<u64, ErrorReply> {
    let timeout = integer(call.word(index)).ok_or(ErrorReply::fixed(
        "ERR timeout is not an integer or out of range",
    ))?;
    let timeout =
        u64::try_from(timeout).map_err(|_| ErrorReply::fixed("ERR timeout is negative"))?;
    call.now_ms
        .checked_add(timeout)
        .filter(|&until| i64::try_from(until).is_ok())
        .ok_or(ErrorReply::fixed("ERR timeout is out of range"))
}

fn unpause(call: &mut Call<'_>) -> Result<Flow, ErrorReply> {
    call.local.shared.resp.pause.end();
    call.out.ok();
    Ok(Flow::Done)
}
