//! The one table of routes. Dispatch, 404 with what comes near, 405 with Allow, the labels of metrics, permission classes
//! and the `OpenAPI` document all follow from it; a route that is not here does not exist.

use http::Method;

use crate::access::permission::Permission;
use crate::config::nearest;

/// Where a route is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Inline, on the data thread of the connection.
    Data,
    /// There as well: of the node itself, whatever state its data are in.
    Node,
    /// By axum, on the control runtime.
    Control,
}

/// A method of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    Get,
    Head,
    Post,
    Put,
    Delete,
}

impl Verb {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    #[inline]
    fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PUT => Some(Self::Put),
            Method::DELETE => Some(Self::Delete),
            Method::HEAD => Some(Self::Head),
            _ => None,
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) id: RouteId,
    pub(crate) verb: Verb,
    /// The path, whole; or with `{key}` or `{file}` at its end, which stands for the rest of it, or `{name}`, for a last part of it.
    pub(crate) path: &'static str,
    /// The label in metrics, and the operation's name in `OpenAPI`.
    pub(crate) name: &'static str,
    pub(crate) permission: Permission,
    pub(crate) place: Place,
    /// What it does, in a line.
    pub(crate) summary: &'static str,
}

macro_rules! routes {
    ($($id:ident $verb:ident $path:literal $name:literal $permission:ident $place:ident $summary:literal;)*) => {
        /// The name of a route; as a number, its row in [`ROUTES`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum RouteId { $($id,)* }

        /// All routes, those that must be found fastest first.
        pub(crate) static ROUTES: [Route; [$($name),*].len()] = [$(Route {
            id: RouteId::$id,
            verb: Verb::$verb,
            path: $path,
            name: $name,
            permission: Permission::$permission,
            place: Place::$place,
            summary: $summary,
        },)*];
    };
}

impl RouteId {
    /// Whether its requests are about the keys that they name, and wait for nothing else.
    pub(crate) fn is_about_keys(self) -> bool {
        let is_beside = matches!(
            self,
            Self::Keys
                | Self::KeysPost
                | Self::Why
                | Self::WhyPost
                | Self::Hot
                | Self::Big
                | Self::Slow
                | Self::Flush
                | Self::Restore
        );
        ROUTES[self as usize].place == Place::Data && !is_beside
    }
}

routes! {
    Get          Get    "/get"            "get"           Read    Data    "The item of a key";
    Set          Post   "/set"            "set"           Write   Data    "Stores a value under a key";
    RawGet       Get    "/cache/{key}"    "raw_get"       Read    Data    "The value of a key, as it is";
    RawPut       Put    "/cache/{key}"    "raw_put"       Write   Data    "Stores the body as the value of a key";
    RawHead      Head   "/cache/{key}"    "raw_head"      Read    Data    "The headers of the value of a key";
    RawDelete    Delete "/cache/{key}"    "raw_delete"    Write   Data    "Removes a key";
    Mget         Post   "/mget"           "mget"          Read    Data    "The items of many keys";
    Mset         Post   "/mset"           "mset"          Write   Data    "Stores values under many keys";
    Mdelete      Post   "/mdelete"        "mdelete"       Write   Data    "Removes many keys";
    Delete       Delete "/delete"         "delete"        Write   Data    "Removes a key";
    DeletePost   Post   "/delete"         "delete_post"   Write   Data    "Removes a key given in the body";
    GetPost      Post   "/get"            "get_post"      Read    Data    "The item of a key given in the body";
    Incr         Post   "/incr"           "incr"          Update   Data    "Adds to an integer counter";
    Expire       Post   "/expire"         "expire"        Write   Data    "Gives a key a new lifetime";
    Persist      Post   "/persist"        "persist"       Write   Data    "Takes the lifetime from a key";
    Ttl          Get    "/ttl"            "ttl"           Read    Data    "What remains of a key's lifetime";
    TtlPost      Post   "/ttl"            "ttl_post"      Read    Data    "What remains of the lifetime of a key given in the body";
    Exists       Get    "/exists"         "exists"        Read    Data    "Whether a key exists";
    ExistsPost   Post   "/exists"         "exists_post"   Read    Data    "Whether a key given in the body exists";
    Keys         Get    "/keys"           "keys"          Read    Data    "A page of a scan over the keys";
    KeysPost     Post   "/keys"           "keys_post"     Read    Data    "A page of a scan over the keys, asked for in the body";
    Why          Get    "/why"            "why"           Read    Data    "Why a key is not there";
    WhyPost      Post   "/why"            "why_post"      Read    Data    "Why a key given in the body is not there";
    Hot          Get    "/hot"            "hot"           Read    Data    "The keys that are asked for most, of this node";
    Big          Get    "/big"            "big"           Read    Data    "The largest items of this node";
    Slow         Get    "/slow"           "slow"          Admin   Data    "The last requests and commands that were slow";
    Flush        Post   "/flush"          "flush"         Admin   Data    "Forgets everything";
    Health       Get    "/health"         "health"        Anyone Node    "Whether the process lives";
    Ready        Get    "/ready"          "ready"         Anyone Node    "Whether the node takes requests";
    Whoami       Get    "/whoami"         "whoami"        Anyone Node    "What who asks may do here";
    Config       Get    "/config"         "config"        Admin   Node    "The settings in force";
    Console      Get    "/console"        "console"       Anyone Node    "Where the console is";
    ConsoleFile  Get    "/console/{file}" "console_file"  Anyone Node    "A file of the console";
    Version      Get    "/version"        "version"       Observe Control "What is running";
    Stats        Get    "/stats"          "stats"         Observe Control "The cache in one page";
    Metrics      Get    "/metrics"        "metrics"       Observe Control "Metrics as Prometheus reads them";
    MetricsJson  Get    "/metrics/json"   "metrics_json"  Observe Control "All metrics, with quantiles, as JSON";
    Cluster      Get    "/cluster/status" "cluster_status" Observe Control "The cluster as this node sees it";
    Ring         Get    "/cluster/ring"   "cluster_ring"  Observe Control "Where a key lives and why, or who has which partitions";
    Events       Get    "/cluster/events" "cluster_events" Observe Control "The last events of the cluster, as this node has seen them";
    Losses       Get    "/cluster/losses" "cluster_losses" Observe Control "What all members have found to be lost, and what nobody knows";
    Settings     Get    "/cluster/settings" "cluster_settings" Observe Control "The settings that may hold for the whole cluster";
    SetSetting   Put    "/cluster/settings/{name}" "set_cluster_setting" Admin Control "Sets a setting of the whole cluster";
    UnsetSetting Delete "/cluster/settings/{name}" "unset_cluster_setting" Admin Control "Leaves a setting to each node again";
    AddNode      Post   "/cluster/add/{name}" "add_node" Admin Control "Has a member take its share of the partitions";
    DrainNode    Post   "/cluster/drain/{name}" "drain_node" Admin Control "Moves all that a member holds elsewhere";
    RemoveNode   Post   "/cluster/remove/{name}" "remove_node" Admin Control "Removes a member that holds nothing, or never comes back";
    WeighNode    Put    "/cluster/weight/{name}" "weigh_node" Admin Control "Says how much a member should hold beside others";
    Rebalance    Post   "/cluster/rebalance" "rebalance" Admin Control "Reckons anew which member should hold what, and moves that there";
    OpenApi      Get    "/openapi.json"   "openapi"       Observe Control "This interface as an OpenAPI 3.1 document";
    Backup       Get    "/admin/backup"   "backup"        Admin   Control "Some of the records of a partition, for a backup";
    Restore      Post   "/admin/restore"  "restore"       Admin   Data    "Writes records of a backup, each as a new write";
    Reload       Post   "/admin/reload"   "reload"        Admin   Control "Reads again the settings that may change while running";
    ApiKeys      Get    "/admin/keys"     "api_keys"      Admin   Control "The API keys and roles that hold on this node";
    AddApiKey    Post   "/admin/keys"     "add_api_key"   Admin   Control "Adds an API key to those of the cluster";
    RevokeApiKey Delete "/admin/keys/{name}" "revoke_api_key" Admin Control "Has an API key hold no longer, on no node";
    SetRole      Put    "/admin/roles/{name}" "set_role"  Admin   Control "Says what who has a role may do";
    UnsetRole    Delete "/admin/roles/{name}" "unset_role" Admin  Control "Takes a role away";
    Snapshot     Post   "/admin/snapshot" "snapshot"      Admin   Control "Makes a snapshot, and answers when it is on the disk";
}

/// Where the raw form lives; its key is the rest of the path.
pub(crate) const RAW_PREFIX: &str = "/cache/";

impl Route {
    /// Whether the path is one of this route's.
    #[inline]
    fn takes(&self, path: &str) -> bool {
        let rest = ["{key}", "{file}"];
        if let Some(prefix) = rest.iter().find_map(|rest| self.path.strip_suffix(rest)) {
            return path.starts_with(prefix);
        }
        match self.path.strip_suffix("{name}") {
            None => self.path == path,
            Some(prefix) => {
                let name = path.strip_prefix(prefix);
                name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
            }
        }
    }
}

/// Whether a body of the route is JSON.
pub(crate) fn takes_json(route: RouteId) -> bool {
    ROUTES[route as usize].verb == Verb::Post && !matches!(route, RouteId::Flush | RouteId::Restore)
}

/// What the table says of a request.
#[derive(Debug)]
pub(crate) enum Lookup {
    Found(&'static Route),
    /// The path is known, with these methods; and who may know that.
    WrongMethod(Vec<Verb>, Permission),
    /// The path is not known; these are near it.
    Unknown(Vec<&'static str>),
}

/// Finds the route of a request. HEAD is answered wherever GET is.
#[inline]
pub(crate) fn find(method: &Method, path: &str) -> Lookup {
    let verb = Verb::of(method);
    for route in &ROUTES {
        if Some(route.verb) == verb && route.takes(path) {
            return Lookup::Found(route);
        }
    }
    find_slowly(verb, path)
}

#[cold]
fn find_slowly(verb: Option<Verb>, path: &str) -> Lookup {
    let here = || ROUTES.iter().filter(|route| route.takes(path));
    if verb == Some(Verb::Head)
        && let Some(route) = here().find(|route| route.verb == Verb::Get)
    {
        return Lookup::Found(route);
    }
    let mut allowed: Vec<Verb> = here().map(|route| route.verb).collect();
    if !allowed.is_empty() {
        if allowed.contains(&Verb::Get) && !allowed.contains(&Verb::Head) {
            allowed.push(Verb::Head);
        }
        let is_open = here().all(|route| route.permission == Permission::Anyone);
        let needed = if is_open {
            Permission::Anyone
        } else {
            Permission::Connection
        };
        return Lookup::WrongMethod(allowed, needed);
    }
    Lookup::Unknown(near(path))
}

/// The routes that may be meant: the one that is spelt nearest, those that the path only adds a prefix to, and those that
/// it begins. A path longer than any of ours is not looked at.
fn near(path: &str) -> Vec<&'static str> {
    const LONGEST: usize = 24;
    let path = path.trim_matches('/');
    if path.is_empty() || path.len() > LONGEST {
        return Vec::new();
    }
    let bare = |known: &'static str| known.trim_matches('/');
    let spelt = nearest(path, ROUTES.iter().map(|route| bare(route.path)));
    let mut near: Vec<&str> = Vec::new();
    for known in ROUTES.iter().map(|route| route.path) {
        let bare = bare(known);
        let related = spelt == Some(bare)
            || path.rsplit('/').next() == Some(bare)
            || bare.split('/').next() == Some(path);
        if related && !near.contains(&known) {
            near.push(known);
        }
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for (index, route) in ROUTES.iter().enumerate() {
            assert_eq!(route.id as usize, index);
            let twins = ROUTES.iter().filter(|other| {
                other.name == route.name || (other.path, other.verb) == (route.path, route.verb)
            });
            assert_eq!(twins.count(), 1, "{}", route.name);
        }
    }

    #[test]
    fn requests_find_their_routes() {
        let found = |method: Method, path: &str| match find(&method, path) {
            Lookup::Found(route) => route.name.to_owned(),
            Lookup::WrongMethod(verbs, _) => format!("{verbs:?}"),
            Lookup::Unknown(near) => near.join(" "),
        };
        for (method, path, expected) in [
            (Method::GET, "/get", "get"),
            (Method::POST, "/get", "get_post"),
            (Method::HEAD, "/health", "health"),
            (Method::HEAD, "/cache/a/b", "raw_head"),
            (Method::PUT, "/cache/", "raw_put"),
            (Method::PUT, "/get", "[Get, Post, Head]"),
            (Method::OPTIONS, "/set", "[Post]"),
            (Method::GET, "/gets", "/get"),
            (Method::GET, "/api/health", "/health"),
            (Method::GET, "/Metrics/", "/metrics"),
            (
                Method::GET,
                "/cluster",
                "/cluster/status /cluster/ring /cluster/events /cluster/losses /cluster/settings /cluster/settings/{name} /cluster/add/{name} /cluster/drain/{name} /cluster/remove/{name} /cluster/weight/{name} /cluster/rebalance",
            ),
            (Method::GET, "/cluster/settings", "cluster_settings"),
            (
                Method::PUT,
                "/cluster/settings/cluster.redirect",
                "set_cluster_setting",
            ),
            (Method::GET, "/cluster/settings/a", "[Put, Delete]"),
            (Method::DELETE, "/cluster/settings/", "/cluster/settings"),
            (Method::DELETE, "/cluster/settings/a/b", "/cluster/settings"),
            (Method::GET, "/", ""),
            (Method::GET, "/cache", "/cache/{key}"),
            (Method::GET, "/something/else", ""),
        ] {
            assert_eq!(found(method, path), expected, "{path}");
        }
    }
}
