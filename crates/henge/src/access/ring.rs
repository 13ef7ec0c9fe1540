//! The keys that hold on a node: those of its own file and those that its cluster has agreed on, as one, with the roles
//! resolved. It is made anew with each change and never changes itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::agreed::{Agreed, AgreedKey};
use super::entry::{DEFAULT_USER, KeyRule};
use super::file::KeyFile;
use super::hash::{self, KeyHash, KeyId};
use super::permission::Permissions;
use super::prefix::Prefix;

/// A key that holds, or will not for much longer: what it is called, and what who has it may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) hash: Option<KeyHash>,
    /// A name in the certificate of whose it is.
    pub(crate) certificate: Option<String>,
    /// Its own, and those of its roles.
    pub(crate) permissions: Permissions,
    pub(crate) roles: BTreeSet<String>,
    /// The keys of the cache that it may touch begin with one of these; all where there is none.
    pub(crate) prefixes: Vec<Prefix>,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) source: Source,
}

/// Where a key or a role is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The key file of this node.
    File,
    /// All agree on it.
    Cluster,
}

impl Source {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Cluster => "cluster",
        }
    }
}

impl Key {
    /// Whether it holds at this time.
    pub(crate) fn holds_at(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|until| now_ms < until)
    }

    /// Whether all may be done with it.
    pub(crate) fn is_free(&self) -> bool {
        self.permissions == Permissions::ALL && self.prefixes.is_empty()
    }

    /// Whether it may touch this key of the cache.
    #[inline]
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| prefix.begins(key))
    }
}

/// What becomes of clients from elsewhere while there is no key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strangers {
    /// They are served.
    Served,
    /// They are refused: protected mode.
    Refused,
    /// They are refused until it is known whether the cluster has keys.
    Wait,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Another one for each ring of a process, from 1 on.
    pub(super) generation: u64,
    pub(super) strangers: Strangers,
    by_name: BTreeMap<String, Arc<Key>>,
    by_id: BTreeMap<KeyId, Arc<Key>>,
    by_certificate: BTreeMap<String, Arc<Key>>,
    /// Names whose keys were revoked.
    revoked: BTreeSet<String>,
    pub(crate) roles: BTreeMap<String, (Permissions, Source)>,
    /// Of each setting of the cluster that is a key or a role, which change has made it what it is.
    versions: BTreeMap<String, u64>,
    /// Whether the cluster has room for another.
    has_room: bool,
    /// A hash that no text has.
    nobodys: KeyHash,
}

impl Ring {
    /// The keys of a file and of a cluster: where both have one of a name, that of the cluster holds.
    pub(super) fn of(
        generation: u64,
        strangers: Strangers,
        file: Option<&KeyFile>,
        agreed: &Agreed,
    ) -> Self {
        let mut ring = Self {
            generation,
            strangers,
            by_name: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_certificate: BTreeMap::new(),
            revoked: BTreeSet::new(),
            roles: BTreeMap::new(),
            versions: agreed.versions.clone(),
            has_room: agreed.has_room,
            nobodys: KeyHash::nobodys(),
        };
        if let Some(file) = file {
            let roles = file.roles.iter();
            let roles = roles.map(|(name, held)| (name.clone(), (*held, Source::File)));
            ring.roles.extend(roles);
        }
        let roles = agreed.roles.iter();
        let roles = roles.map(|(name, held)| (name.clone(), (*held, Source::Cluster)));
        ring.roles.extend(roles);
        for (name, key) in &agreed.keys {
            match key {
                AgreedKey::Revoked => {
                    ring.revoked.insert(name.clone());
                }
                AgreedKey::Held(rule) => ring.add(name, rule, Source::Cluster),
            }
        }
        for (name, rule) in file.iter().flat_map(|file| &file.keys) {
            if !agreed.keys.contains_key(name) {
                ring.add(name, rule, Source::File);
            }
        }
        ring
    }

    /// Two keys of one number, or of one certificate, are not told apart, so the first of them holds: the cluster's.
    fn add(&mut self, name: &str, rule: &KeyRule, source: Source) {
        let of_roles = rule.roles.iter().filter_map(|role| self.roles.get(role));
        let permissions = of_roles.fold(rule.permissions, |all, (permissions, _)| {
            all.and(*permissions)
        });
        // A role may give what the key itself could not have been given.
        let permissions = if rule.prefixes.is_empty() {
            permissions
        } else {
            permissions.without(Permissions::ADMIN)
        };
        let prefixes = rule.prefixes.iter().map(|prefix| Prefix::new(prefix));
        let key = Key {
            name: name.to_owned(),
            hash: rule.hash.clone(),
            certificate: rule.certificate.clone(),
            permissions,
            roles: rule.roles.clone(),
            prefixes: prefixes.collect(),
            expires_at_ms: rule.expires_at_ms,
            source,
        };
        let id = key.hash.as_ref().map(|hash| hash.id);
        let has_id = id.is_some_and(|id| self.by_id.contains_key(&id));
        let certificate = key.certificate.as_ref();
        if has_id || certificate.is_some_and(|name| self.by_certificate.contains_key(name)) {
            tracing::error!(
                key = name,
                "has the number or the certificate of another key, and is ignored"
            );
            return;
        }
        let key = Arc::new(key);
        if let Some(id) = id {
            self.by_id.insert(id, Arc::clone(&key));
        }
        if let Some(certificate) = &key.certificate {
            let certificate = certificate.clone();
            self.by_certificate.insert(certificate, Arc::clone(&key));
        }
        self.by_name.insert(name.to_owned(), key);
    }

    /// Whether there never was a key: then nobody is asked for one.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.revoked.is_empty()
    }

    /// Which change has made a key or a role of the cluster what it is; 0 for one that there is not.
    pub(crate) fn version_of(&self, setting: &str) -> u64 {
        self.versions.get(setting).copied().unwrap_or(0)
    }

    /// Whether the cluster has room for another key or role, with some left for what is revoked.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room
    }

    /// All keys, by their names.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.by_name.values()
    }

    /// The key of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Key>> {
        self.by_name.get(name)
    }

    /// The names whose keys were revoked.
    pub(crate) fn revoked(&self) -> impl Iterator<Item = &str> {
        self.revoked.iter().map(String::as_str)
    }

    /// The key that a text is, if it holds and has that name, where one is given. It costs one hash of a text that has the form
    /// of a key, whatever is wrong with it, and none of any other.
    pub(crate) fn known(&self, name: Option<&[u8]>, text: &[u8], now_ms: u64) -> Option<&Arc<Key>> {
        let id = hash::id_in(text)?;
        let key = self.by_id.get(&id);
        let hash = key.and_then(|key| key.hash.as_ref());
        let hash = hash.unwrap_or(&self.nobodys);
        let is_right = hash.is_of(text);
        let key = key.filter(|_| is_right)?;
        let is_meant =
            name.is_none_or(|name| name == DEFAULT_USER.as_bytes() || name == key.name.as_bytes());
        (is_meant && key.holds_at(now_ms)).then_some(key)
    }

    /// The key of who has shown a certificate of this name, if it holds.
    pub(crate) fn certified(&self, name: &str, now_ms: u64) -> Option<&Arc<Key>> {
        let key = self.by_certificate.get(name);
        key.filter(|key| key.holds_at(now_ms))
    }

    /// The key whose text was shown that one of an earlier ring is now: the same, or one that was given other rights since.
    pub(crate) fn again(&self, key: &Key) -> Option<&Arc<Key>> {
        let found = self.by_id.get(&key.hash.as_ref()?.id);
        found.filter(|found| found.hash == key.hash)
    }

    /// Whether somebody could still administer the node, for as long as its keys do not expire.
    pub(crate) fn can_be_administered(&self) -> bool {
        self.is_empty()
            || self
                .by_name
                .values()
                .any(|key| key.expires_at_ms.is_none() && key.permissions.have(Permissions::ADMIN))
    }
}

/// The names of roles that a key asks for, and that there are not.
pub(crate) fn unknown_roles<'a>(
    ring: &'a Ring,
    roles: &'a BTreeSet<String>,
) -> impl Iterator<Item = &'a str> {
    let unknown = roles.iter().filter(|role| !ring.roles.contains_key(*role));
    unknown.map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::super::agreed::testing::agreed;
    use super::super::entry::KeyEntry;
    use super::super::hash::{COMPARED, NewKey};
    use super::*;

    fn entry(key: &NewKey, permissions: &[&str]) -> KeyEntry {
        KeyEntry {
            hash: Some(key.hash.to_string()),
            permissions: permissions.iter().map(|&name| name.to_owned()).collect(),
            ..KeyEntry::default()
        }
    }

    fn file(keys: &[(&str, &KeyEntry)]) -> KeyFile {
        KeyFile {
            keys: keys
                .iter()
                .map(|(name, key)| ((*name).to_owned(), key.read().expect("it is right")))
                .collect(),
            roles: [("all".to_owned(), Permissions::ALL)].into(),
        }
    }

    /// However much of a text is right, it is hashed once and compared once, by what does that in constant time, and nothing is looked
    /// at before; and what cannot be a key costs not even that.
    #[test]
    fn a_no_takes_as_long_whatever_is_wrong() {
        let (one, other) = (NewKey::draw(), NewKey::draw());
        let mut certified = entry(&other, &["read"]);
        (certified.hash, certified.certificate) = (None, Some("other.example".into()));
        let file = file(&[("one", &entry(&one, &["read"])), ("other", &certified)]);
        let ring = Ring::of(1, Strangers::Refused, Some(&file), &Agreed::default());
        let changed = |place: usize| {
            let mut text = one.text.clone().into_bytes();
            text[place] = if text[place] == b'0' { b'1' } else { b'0' };
            text
        };
        let id = "henge_".len();
        let last = one.text.len() - 1;
        let right = one.text.clone().into_bytes();
        for (what, name, text, times) in [
            ("all is right", None, right.clone(), 1),
            ("another's name", Some("other"), right.clone(), 1),
            ("nobody's name", Some("nobody"), right, 1),
            ("the number's first digit", None, changed(id), 1),
            ("the number's last digit", None, changed(id + 11), 1),
            ("the first character", None, changed(id + 13), 1),
            ("the last character", None, changed(last), 1),
            ("nobody's", None, NewKey::draw().text.into_bytes(), 1),
            ("of a key without a hash", None, other.text.into_bytes(), 1),
            ("too short", None, changed(0)[..last].to_vec(), 0),
            ("a megabyte", None, vec![b'0'; 1 << 20], 0),
        ] {
            let before = COMPARED.get();
            let known = ring.known(name.map(str::as_bytes), &text, 0);
            assert_eq!(known.is_some(), what == "all is right", "{what}");
            assert_eq!(COMPARED.get() - before, times, "{what}");
        }
    }

    #[test]
    fn who_is_known() {
        let (one, other) = (NewKey::draw(), NewKey::draw());
        let mut expired = entry(&other, &["read"]);
        expired.expires = Some("2026-01-01".into());
        let until = crate::calendar::parse("2026-01-01").expect("a day");
        let file = file(&[("one", &entry(&one, &["read"])), ("other", &expired)]);
        let ring = Ring::of(1, Strangers::Refused, Some(&file), &Agreed::default());
        let named = |name: Option<&str>, text: &str, now_ms| {
            let key = ring.known(name.map(str::as_bytes), text.as_bytes(), now_ms);
            key.map(|key| key.name.clone())
        };
        let stranger = NewKey::draw().text;
        let mixed = format!("{}{}", &one.text[..18], &other.text[18..]);
        for (name, text, now_ms, expected) in [
            (None, &one.text, until, Some("one")),
            (Some("one"), &one.text, until, Some("one")),
            (Some("default"), &one.text, until, Some("one")),
            (Some("other"), &one.text, until, None),
            (None, &other.text, until - 1, Some("other")),
            (None, &other.text, until, None),
            (None, &stranger, 0, None),
            (None, &mixed, 0, None),
            (None, &"one".to_owned(), 0, None),
        ] {
            assert_eq!(named(name, text, now_ms).as_deref(), expected, "{name:?}");
        }
    }

    #[test]
    fn the_cluster_goes_before_the_file() {
        let (old, new) = (NewKey::draw(), NewKey::draw());
        let file = file(&[
            ("web", &entry(&old, &["admin"])),
            ("two", &entry(&NewKey::draw(), &["read"])),
        ]);
        let held = agreed(&[("key.web", &entry(&new, &["read"]).to_text())]);
        let ring = Ring::of(1, Strangers::Refused, Some(&file), &held);
        assert!(ring.known(None, old.text.as_bytes(), 0).is_none());
        let key = ring.known(None, new.text.as_bytes(), 0).expect("it holds");
        assert_eq!(
            (key.permissions, key.source),
            (Permissions::READ, Source::Cluster)
        );
        assert_eq!(ring.keys().count(), 2);
        assert!(!ring.can_be_administered());

        let revoked = agreed(&[("key.web", "revoked")]);
        let ring = Ring::of(2, Strangers::Refused, Some(&file), &revoked);
        assert!(ring.known(None, old.text.as_bytes(), 0).is_none());
        assert_eq!(ring.revoked().collect::<Vec<_>>(), ["web"]);
    }

    #[test]
    fn where_the_last_key_was_revoked_nobody_is_let_in() {
        let ring = Ring::of(
            1,
            Strangers::Refused,
            None,
            &agreed(&[("key.web", "revoked")]),
        );
        assert!(!ring.is_empty());
        assert!(Ring::of(1, Strangers::Refused, None, &Agreed::default()).is_empty());
    }

    #[test]
    fn roles_give_what_they_are_and_no_administration_to_who_is_confined() {
        let (free, confined) = (NewKey::draw(), NewKey::draw());
        let mut first = entry(&free, &[]);
        first.roles = ["all".to_owned(), "gone".to_owned()].into();
        let mut second = entry(&confined, &[]);
        second.roles = first.roles.clone();
        second.prefixes = ["a:".to_owned()].into();
        let ring = Ring::of(
            1,
            Strangers::Refused,
            Some(&file(&[("free", &first), ("confined", &second)])),
            &Agreed::default(),
        );
        let free = ring.named("free").expect("it is there");
        assert!(free.is_free());
        assert_eq!(
            unknown_roles(&ring, &free.roles).collect::<Vec<_>>(),
            ["gone"]
        );
        let confined = ring.named("confined").expect("it is there");
        assert_eq!(confined.permissions.to_string(), "read, write");
        assert!(confined.covers(b"a:1") && !confined.covers(b"b:1") && !confined.covers(b"a"));
    }

    #[test]
    fn a_key_is_the_same_in_the_next_ring_if_its_text_is() {
        let key = NewKey::draw();
        let before = Ring::of(
            1,
            Strangers::Refused,
            Some(&file(&[("a", &entry(&key, &["read"]))])),
            &Agreed::default(),
        );
        let held = before.named("a").expect("it is there");
        let after = Ring::of(
            2,
            Strangers::Refused,
            Some(&file(&[("b", &entry(&key, &["write"]))])),
            &Agreed::default(),
        );
        let again = after.again(held).expect("the text is the same");
        assert_eq!(
            (again.name.as_str(), again.permissions),
            ("b", Permissions::WRITE)
        );
        let empty = Ring::of(3, Strangers::Refused, None, &Agreed::default());
        assert!(empty.again(held).is_none());
    }
}
