//! What a command or a route asks of who calls it, and what a key may hold of that. Which permission is needed is part of
//! the one definition of each command (`resp/table.rs`) and each route (`http/routes.rs`).

use std::fmt;

/// Who may call a command or a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Permission {
    /// Anyone, known or not.
    Anyone,
    /// Whoever has a key: it touches nothing but the connection.
    Connection,
    /// Who may read keys.
    Read,
    /// Who may change keys.
    Write,
    /// Who may read keys and change them: what is changed is told.
    Update,
    /// Who may see the figures of the node and the cluster: who may read, or administer.
    Observe,
    /// Who may change the node, the cluster, or all data.
    Admin,
}

impl Permission {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Anyone,
        Self::Connection,
        Self::Read,
        Self::Write,
        Self::Update,
        Self::Observe,
        Self::Admin,
    ];

    /// As the pages of documentation have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Connection => "connection",
            Self::Read => "read",
            Self::Write => "write",
            Self::Update => "read and write",
            Self::Observe => "observe",
            Self::Admin => "admin",
        }
    }

    /// Whether a key that holds these is enough.
    pub(crate) const fn is_met_by(self, held: Permissions) -> bool {
        match self {
            Self::Anyone | Self::Connection => true,
            Self::Read => held.have(Permissions::READ),
            Self::Write => held.have(Permissions::WRITE),
            Self::Update => held.have(Permissions::READ.and(Permissions::WRITE)),
            Self::Observe => held.have(Permissions::READ) || held.have(Permissions::ADMIN),
            Self::Admin => held.have(Permissions::ADMIN),
        }
    }
}

/// Which of all [`Permission`]s somebody meets: worked out once, so that a request costs a look at a bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Met(u8);

impl Met {
    /// Those that are met where this is so.
    pub(crate) fn of(is_met: impl Fn(Permission) -> bool) -> Self {
        let met = Permission::ALL.into_iter().filter(|one| is_met(*one));
        Self(met.fold(0, |bits, one| bits | 1 << one as u8))
    }

    /// Whether this is one of them.
    #[inline]
    pub(crate) const fn has(self, needed: Permission) -> bool {
        self.0 & 1 << needed as u8 != 0
    }
}

/// What a key holds, or a role: any of `read`, `write` and `admin`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Permissions(u8);

impl Permissions {
    pub(crate) const READ: Self = Self(1);
    pub(crate) const WRITE: Self = Self(2);
    pub(crate) const ADMIN: Self = Self(4);
    pub(crate) const ALL: Self = Self(7);

    /// Each by its name.
    const NAMES: [(&'static str, Self); 3] = [
        ("read", Self::READ),
        ("write", Self::WRITE),
        ("admin", Self::ADMIN),
    ];

    /// Those of both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These but for the others.
    pub(crate) const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether all of the others are among these.
    pub(crate) const fn have(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, permission)| *permission)
    }

    /// Their names.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let held = Self::NAMES
            .into_iter()
            .filter(move |(_, one)| self.have(*one));
        held.map(|(name, _)| name)
    }
}

/// As `read, write`.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every need beside every set.
    #[test]
    fn what_is_enough_for_what() {
        let sets = [
            ("", Permissions::default()),
            ("r", Permissions::READ),
            ("w", Permissions::WRITE),
            ("rw", Permissions::READ.and(Permissions::WRITE)),
            ("a", Permissions::ADMIN),
            ("rwa", Permissions::ALL),
        ];
        for (needed, enough) in Permission::ALL.into_iter().zip([
            " r w rw a rwa",
            " r w rw a rwa",
            "r rw rwa",
            "w rw rwa",
            "rw rwa",
            "r rw a rwa",
            "a rwa",
        ]) {
            let met: Vec<&str> = sets
                .iter()
                .filter(|(_, held)| needed.is_met_by(*held))
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(met.join(" "), enough, "{needed:?}");
            for (name, held) in sets {
                let all = Met::of(|one| one.is_met_by(held));
                assert_eq!(all.has(needed), needed.is_met_by(held), "{name}");
            }
        }
    }

    #[test]
    fn names() {
        assert_eq!(Permissions::ALL.to_string(), "read, write, admin");
        assert_eq!(Permissions::named("write"), Some(Permissions::WRITE));
        assert_eq!(Permissions::named("Write"), None);
    }
}
