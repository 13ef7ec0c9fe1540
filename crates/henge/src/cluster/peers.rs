//! Connections that other nodes have made to this one. Those for data and for bulk are answered on the data thread that they came
//! to; those for control go to the control runtime.

use std::net::TcpStream as StdStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use henge_cluster::greeting::Failure;
use henge_wire::peer::{Hello, Purpose};
use tokio::net::TcpStream;

use super::keys;
use super::link::Service;
use super::link::answering::{Answers, Reply, answer_all};
use super::link::greet::{self, GreetError, Greeted};
use super::link::parking::Parks;
use super::link::standing::Standing;
use super::replicas;
use crate::metrics::counters::add;
use crate::net::data_thread::{Listens, Local};
use crate::net::watch::DRAIN_GRACE;
use crate::resp::{self, Client};
use crate::traces::{self, Kind, Wrapped};

/// A connection on its way to the control runtime.
#[derive(Debug)]
pub(crate) struct Handover {
    socket: StdStream,
    incoming: super::link::frames::Incoming,
    hello: Hello,
    standing: Standing,
}

impl Handover {
    /// The connection, in this runtime; none if the system has no room for it.
    pub(crate) fn take(self) -> Option<Greeted> {
        Some(Greeted {
            socket: TcpStream::from_std(self.socket).ok()?,
            incoming: self.incoming,
            hello: self.hello,
            standing: self.standing,
        })
    }
}

/// Serves a connection whose preface was read, with what came behind it.
pub(crate) async fn serve(socket: TcpStream, first: Vec<u8>, local: &Rc<Local>) {
    let Ok(remote) = socket.peer_addr() else {
        // It is gone already.
        return;
    };
    let greeted = match greet::accept(socket, &first, &local.shared.cluster.identity).await {
        Ok(greeted) => greeted,
        Err(error) => {
            add(&local.counters.protocol_errors, 1);
            let cluster = &local.shared.cluster;
            if let GreetError::Said(Failure::Cluster(name, theirs)) = &error {
                let machine = remote.ip().to_canonical().to_string();
                let now_ms = local.shared.clock.now_ms();
                cluster.tell_of_another(now_ms, &machine, name, *theirs);
            } else if error.is_lasting() && cluster.is_to_be_told(remote.ip()) {
                tracing::warn!(%remote, %error, "a connection of another node was refused");
            } else {
                tracing::debug!(%remote, %error, "a connection of another node was refused");
            }
            return;
        }
    };
    if greeted.hello.purpose == Purpose::Control {
        let Greeted {
            socket,
            incoming,
            hello,
            standing,
        } = greeted;
        if let Ok(socket) = socket.into_std() {
            let handover = Handover {
                socket,
                incoming,
                hello,
                standing,
            };
            // Where hundreds wait the other side tries again.
            let _ = local.shared.cluster.handovers.try_send(handover);
        }
        return;
    }
    if greeted.hello.purpose == Purpose::Stream {
        let _listens = Listens::begin(local);
        if let Some(error) = replicas::streams::listen(greeted, local).await {
            tracing::debug!(%remote, %error, "a stream of replicas has ended");
        }
        return;
    }
    let name = greeted.hello.name.clone();
    let clients = &local.shared.resp.clients;
    let (here, now_ms) = (greeted.socket.local_addr(), local.shared.clock.now_ms());
    let client = clients.unlisted(remote, here.unwrap_or(remote), 0, now_ms);
    let parks = Parks {
        parking: Arc::clone(&local.shared.parking),
        instance: greeted.hello.instance,
    };
    let answers = DataAnswers {
        local: Rc::clone(local),
        client,
        parks: parks.clone(),
    };
    // What is large is for the other kind of connection, where it is sent as it is.
    let parks = (greeted.hello.purpose == Purpose::Data).then_some(parks);
    let mut answering = pin!(answer_all(greeted, &answers, parks));
    let drained = async {
        if !local.is_draining() {
            local.drain().await;
        }
    };
    let ended = tokio::select! {
        ended = &mut answering => ended,
        () = drained => {
            let last = tokio::time::timeout(DRAIN_GRACE, answering).await;
            last.ok().flatten()
        }
    };
    if let Some(error) = ended {
        tracing::debug!(%remote, name, %error, "a connection of another node has ended");
    }
}

struct DataAnswers {
    local: Rc<Local>,
    client: Arc<Client>,
    parks: Parks,
}

impl Answers for DataAnswers {
    fn answer(&self, service: Service, question: Bytes, reply: Reply) {
        match service {
            Service::Resp => resp::answer_forwarded(&self.local, &self.client, &question, reply),
            Service::Commands => keys::answer(&self.local, &question, reply),
            Service::Claim => {
                let number = question
                    .first_chunk()
                    .map(|bytes| u64::from_le_bytes(*bytes));
                let Parks { parking, instance } = &self.parks;
                match number.and_then(|number| parking.claim(*instance, number)) {
                    Some(answer) => reply.send(&[&answer]),
                    None => reply.fail("it keeps no answer under this number, or not any more"),
                }
            }
            Service::Traced => self.answer_traced(question, reply),
            _ => reply.fail("this is asked over connections for control"),
        }
    }
}

impl DataAnswers {
    /// Answers the question that is in this one, and traces it, if this node does that.
    fn answer_traced(&self, question: Bytes, reply: Reply) {
        let wrapped = Wrapped::decode(question);
        let inner = wrapped.and_then(|wrapped| {
            let service = Service::of(wrapped.service)?;
            let is_traced = matches!(service, Service::Resp | Service::Commands);
            is_traced.then_some((service, wrapped))
        });
        let Some((service, wrapped)) = inner else {
            return reply.fail("no such question is traced");
        };
        let Wrapped {
            context, question, ..
        } = wrapped;
        let (Some(tracer), Some(context)) = (&self.local.tracer, context) else {
            return self.answer(service, question, reply);
        };
        let span = tracer.begin_of(&context, "forward", Kind::Server);
        let scope = span.scope().clone();
        let _entered = traces::enter(&scope);
        self.answer(service, question, reply.traced(span));
    }
}
