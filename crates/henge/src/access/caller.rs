//! Who asks on a connection, as far as that was proved, and whether it may do what it asks for. What it found out it keeps
//! until keys change or its own expires, so that a request costs a look at a number.

use std::net::IpAddr;
use std::sync::Arc;

use henge_wire::{Glob, MAX_PATTERN_BYTES};

use super::Access;
use super::permission::{Met, Permission};
use super::ring::{Key, Ring, Strangers};

/// Why somebody was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Denied {
    /// There are no keys, and it comes from elsewhere.
    Protected,
    /// It is not known yet whether there are keys, and it comes from elsewhere.
    NotYet,
    /// It has shown no key that holds.
    Unknown,
    /// Its key does not hold the permission.
    Permission(Permission),
    /// Its key is confined to others than the keys of the cache that it named, or than all of them.
    Scope,
}

/// What to do about protected mode, for who reads it where a server answers nobody.
pub(crate) const PROTECTED: &str = "no API key is configured, so only clients of the same machine are served; make one with `henge key new` and name its file in security.key_file, or set security.protected_mode = false where the network keeps strangers out";

/// The same where that is for a while.
pub(crate) const NOT_YET: &str = "the node has not heard yet which API keys its cluster has, and shows others than clients of its own machine only figures until then";

/// What somebody may do.
#[derive(Clone, Debug)]
enum Standing {
    /// All there is.
    Free,
    /// What its key says.
    Holds(Arc<Key>),
    Refused(Denied),
}

impl Standing {
    /// Which needs it meets.
    fn met(&self) -> Met {
        Met::of(|needed| match self {
            Self::Free => true,
            Self::Holds(key) => needed.is_met_by(key.permissions),
            // Who sets up a cluster has to see what a node waits for.
            Self::Refused(Denied::NotYet) if needed == Permission::Observe => true,
            Self::Refused(_) => needed == Permission::Anyone,
        })
    }
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// It connects from the same machine.
    is_near: bool,
    /// The names in the certificate that it has shown.
    certificates: Vec<String>,
    /// The key whose text it has shown. It goes before a certificate.
    shown: Option<Arc<Key>>,
    /// Whose ring and until when the standing is of; 0 of none.
    generation: u64,
    until_ms: u64,
    standing: Standing,
    /// What follows from that.
    met: Met,
    /// Its key, be it shown or certified.
    key: Option<Arc<Key>>,
    is_trusted_by_place: bool,
}

impl Caller {
    /// One that connects from this address, with these names in its certificate, and has shown nothing else.
    pub(crate) fn from(address: IpAddr, certificates: Vec<String>) -> Self {
        let standing = Standing::Refused(Denied::Unknown);
        Self {
            is_near: address.to_canonical().is_loopback(),
            certificates,
            shown: None,
            generation: 0,
            until_ms: 0,
            met: standing.met(),
            standing,
            key: None,
            is_trusted_by_place: false,
        }
    }

    /// Another node, which has proved to be one: it has asked its own clients.
    pub(crate) fn node() -> Self {
        Self {
            is_near: true,
            certificates: Vec::new(),
            shown: None,
            generation: u64::MAX,
            until_ms: u64::MAX,
            met: Standing::Free.met(),
            standing: Standing::Free,
            key: None,
            is_trusted_by_place: false,
        }
    }

    /// Takes notice of keys that have changed, or expired. Before each batch of requests.
    #[inline]
    pub(crate) fn look(&mut self, access: &Access, now_ms: u64) {
        if now_ms >= self.until_ms || self.generation != access.generation() {
            self.look_again(access, now_ms);
        }
    }

    #[cold]
    fn look_again(&mut self, access: &Access, now_ms: u64) {
        if self.generation == u64::MAX {
            return;
        }
        let ring = access.ring();
        self.shown = self
            .shown
            .take()
            .and_then(|key| ring.again(&key).cloned())
            .filter(|key| key.holds_at(now_ms));
        self.stand(&ring, now_ms);
    }

    fn stand(&mut self, ring: &Ring, now_ms: u64) {
        let mut certificates = self.certificates.iter();
        let certified = || certificates.find_map(|name| ring.certified(name, now_ms).cloned());
        let key = self.shown.clone().or_else(certified);
        self.generation = ring.generation;
        let until = key.as_ref().and_then(|key| key.expires_at_ms);
        self.until_ms = until.unwrap_or(u64::MAX);
        self.is_trusted_by_place = ring.is_empty() && ring.strangers != Strangers::Served;
        self.take(match &key {
            Some(key) if key.is_free() => Standing::Free,
            Some(key) => Standing::Holds(Arc::clone(key)),
            None if !ring.is_empty() => Standing::Refused(Denied::Unknown),
            None if self.is_near => Standing::Free,
            None => match ring.strangers {
                Strangers::Served => Standing::Free,
                Strangers::Refused => Standing::Refused(Denied::Protected),
                Strangers::Wait => Standing::Refused(Denied::NotYet),
            },
        });
        self.key = key;
    }

    fn take(&mut self, standing: Standing) {
        (self.met, self.standing) = (standing.met(), standing);
    }

    /// Shows a key. Who shows one that does not hold stays who it was.
    pub(crate) fn show(
        &mut self,
        access: &Access,
        name: Option<&[u8]>,
        text: &[u8],
        now_ms: u64,
    ) -> Result<(), Denied> {
        let ring = access.ring();
        let key = ring.known(name, text, now_ms).ok_or(Denied::Unknown)?;
        self.shown = Some(Arc::clone(key));
        self.stand(&ring, now_ms);
        Ok(())
    }

    /// Forgets what was shown.
    pub(crate) fn forget(&mut self) {
        if self.generation != u64::MAX {
            self.key = None;
            (self.shown, self.generation) = (None, 0);
            // Until it is looked who it is without.
            self.take(Standing::Refused(Denied::Unknown));
        }
    }

    /// Whether it has shown the text of a key that holds.
    pub(crate) fn has_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// Its key, be it shown or certified.
    #[inline]
    pub(crate) fn key(&self) -> Option<&Arc<Key>> {
        self.key.as_ref()
    }

    /// The name of its key.
    pub(crate) fn name(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.name.as_str())
    }

    /// Its key, if that is confined to some keys of the cache.
    #[inline]
    pub(crate) fn confined(&self) -> Option<&Arc<Key>> {
        match &self.standing {
            Standing::Holds(key) if !key.prefixes.is_empty() => Some(key),
            _ => None,
        }
    }

    /// Whether all may be done.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        matches!(self.standing, Standing::Free)
    }

    /// Whether it is not served at all, for all that was found out.
    #[inline]
    pub(crate) fn is_stranger(&self) -> bool {
        matches!(self.standing, Standing::Refused(_))
    }

    /// Whether it may do what it may for where it is, and for nothing that it has shown.
    #[inline]
    pub(crate) fn is_trusted_by_place(&self) -> bool {
        self.is_trusted_by_place
    }

    /// Refuses who may not do what needs this.
    #[inline]
    pub(crate) fn check(&self, needed: Permission) -> Result<(), Denied> {
        match &self.standing {
            _ if self.met.has(needed) => Ok(()),
            Standing::Refused(denied) => Err(*denied),
            _ => Err(Denied::Permission(needed)),
        }
    }

    /// Refuses who may not touch this key of the cache, whatever it wants with it.
    #[inline]
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), Denied> {
        match &self.standing {
            Standing::Free => Ok(()),
            Standing::Refused(denied) => Err(*denied),
            Standing::Holds(held) if held.covers(key) => Ok(()),
            Standing::Holds(_) => Err(Denied::Scope),
        }
    }

    /// Refuses who may not see all keys of the cache that begin so: all of them for what is empty.
    pub(crate) fn check_prefix(&self, prefix: &[u8]) -> Result<(), Denied> {
        // Whatever begins so begins with what it begins with.
        self.check_key(prefix)
    }

    /// The same for all that a pattern of Redis's matches.
    pub(crate) fn check_pattern(&self, pattern: &[u8]) -> Result<(), Denied> {
        if self.confined().is_none() {
            return self.check_prefix(b"");
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(Denied::Scope);
        }
        self.check_prefix(&Glob::new(pattern).literal_prefix())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::super::hash::NewKey;
    use super::super::testing::{access, file};
    use super::*;

    const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    /// Every state of a node beside every place to come from.
    #[test]
    fn who_is_served_without_a_key() {
        let key = NewKey::draw();
        let with_keys = file(&[("web", &key, &["read"], &[], None)]);
        let mapped = IpAddr::V6(Ipv4Addr::new(127, 0, 0, 9).to_ipv6_mapped());
        let six = IpAddr::V6(Ipv6Addr::LOCALHOST);
        for (address, has_keys, is_protected, expected) in [
            (NEAR, false, true, Ok(())),
            (mapped, false, true, Ok(())),
            (six, false, true, Ok(())),
            (FAR, false, true, Err(Denied::Protected)),
            (FAR, false, false, Ok(())),
            (NEAR, true, true, Err(Denied::Unknown)),
            (NEAR, true, false, Err(Denied::Unknown)),
            (FAR, true, false, Err(Denied::Unknown)),
        ] {
            let access = access(is_protected, has_keys.then(|| with_keys.clone()));
            let mut caller = Caller::from(address, Vec::new());
            caller.look(&access, 0);
            let of_key = caller.check_key(b"k");
            assert_eq!(of_key, expected, "{address}, {has_keys}, {is_protected}");
            assert_eq!(caller.check(Permission::Admin), expected);
            assert_eq!(caller.check(Permission::Anyone), Ok(()));
        }
    }

    #[test]
    fn what_a_key_may_do() {
        let key = NewKey::draw();
        let access = access(
            true,
            Some(file(&[("web", &key, &["read"], &["app:", "b"], None)])),
        );
        let mut caller = Caller::from(FAR, Vec::new());
        caller.look(&access, 0);
        assert_eq!(caller.show(&access, None, b"x", 0), Err(Denied::Unknown));
        assert_eq!(
            caller.show(&access, Some(b"web"), key.text.as_bytes(), 0),
            Ok(())
        );
        assert_eq!(caller.name(), Some("web"));
        // One that is wrong takes nothing away.
        assert_eq!(caller.show(&access, None, b"x", 0), Err(Denied::Unknown));
        assert_eq!(caller.check(Permission::Read), Ok(()));
        let needs_write = Err(Denied::Permission(Permission::Write));
        assert_eq!(caller.check(Permission::Write), needs_write);
        for (name, expected) in [
            ("app:1", Ok(())),
            ("app:", Ok(())),
            ("b", Ok(())),
            ("app", Err(Denied::Scope)),
            ("", Err(Denied::Scope)),
            ("c", Err(Denied::Scope)),
        ] {
            assert_eq!(caller.check_key(name.as_bytes()), expected, "{name}");
        }
        for (pattern, expected) in [
            ("app:*", Ok(())),
            ("b?", Ok(())),
            ("app:[ab]", Ok(())),
            ("ap*", Err(Denied::Scope)),
            ("*", Err(Denied::Scope)),
            ("[a]pp:*", Err(Denied::Scope)),
            ("app\\:*", Ok(())),
        ] {
            assert_eq!(
                caller.check_pattern(pattern.as_bytes()),
                expected,
                "{pattern}"
            );
        }
        caller.forget();
        caller.look(&access, 0);
        assert_eq!(caller.check(Permission::Read), Err(Denied::Unknown));
    }

    #[test]
    fn who_has_a_certificate_needs_no_text() {
        let (key, other) = (NewKey::draw(), NewKey::draw());
        let mut keys = file(&[
            ("web", &key, &["read"], &[], None),
            ("other", &other, &["write"], &[], None),
        ]);
        let web = keys.keys.get_mut("web").expect("it is there");
        (web.hash, web.certificate) = (None, Some("web.example".into()));
        let access = access(true, Some(keys));
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut caller = Caller::from(FAR, names(&["a.example", "web.example"]));
        caller.look(&access, 0);
        assert_eq!(caller.name(), Some("web"));
        assert_eq!(caller.check(Permission::Read), Ok(()));
        // What is shown goes before it, until it is forgotten.
        assert_eq!(caller.show(&access, None, other.text.as_bytes(), 0), Ok(()));
        assert_eq!(
            (caller.name(), caller.check(Permission::Write)),
            (Some("other"), Ok(()))
        );
        caller.forget();
        caller.look(&access, 0);
        assert_eq!(caller.name(), Some("web"));
        let mut stranger = Caller::from(FAR, names(&["web.example.org"]));
        stranger.look(&access, 0);
        assert_eq!(stranger.check(Permission::Read), Err(Denied::Unknown));
    }

    #[test]
    fn keys_that_change_and_expire_are_noticed() {
        let key = NewKey::draw();
        let access = access(
            true,
            Some(file(&[(
                "web",
                &key,
                &["read"],
                &[],
                Some("1970-01-01T00:00:05Z"),
            )])),
        );
        let mut caller = Caller::from(FAR, Vec::new());
        caller.look(&access, 0);
        caller
            .show(&access, None, key.text.as_bytes(), 0)
            .expect("it holds");
        caller.look(&access, 4_999);
        assert_eq!(caller.check(Permission::Read), Ok(()));
        caller.look(&access, 5_000);
        assert_eq!(caller.check(Permission::Read), Err(Denied::Unknown));

        caller
            .show(&access, None, key.text.as_bytes(), 0)
            .expect("it holds");
        access.set_file(true, Some(file(&[("web", &key, &["write"], &[], None)])));
        caller.look(&access, 0);
        assert_eq!(caller.check(Permission::Write), Ok(()));
        access.set_file(
            true,
            Some(file(&[("web", &NewKey::draw(), &["write"], &[], None)])),
        );
        caller.look(&access, 0);
        assert_eq!(caller.check(Permission::Write), Err(Denied::Unknown));

        let mut node = Caller::node();
        node.look(&access, u64::MAX);
        node.forget();
        assert!(node.is_free());
    }
}
