//! Which steps there are from a state, and what is asked of each state, as the explorer takes it.

use super::agreed::partition;
use super::configurations::Configuration;
use super::laws::{Ghost, Law};
use super::local::Flight;
use super::sealed::Sealed;
use super::world::{Budget, Report, Setting, World, id};
use henge_cluster::replica::{Body, Level};
use henge_cluster::ring::NodeId;
use henge_cluster::testing::map::Request;
use henge_cluster::topology::{Command, Incarnation, State};
use stateright::{Model, Property};
use std::fmt;
use std::sync::Arc;

/// Somebody is told something new.
pub const SHOWS: &str = "something is shown or acknowledged";
/// A later leader goes on with what it found.
pub const SECOND_TERM: &str = "a second term commits";
/// A copy of all is sent to its end.
pub const FULL_COPY: &str = "a full copy ends";
/// A copy of what changed is sent to its end.
pub const PART_COPY: &str = "a copy of what changed ends";
/// After a reset a leader opens.
pub const GENERATION: &str = "a generation begins";
/// The new list is the list.
pub const CHANGE: &str = "a change of the replicas ends";

/// What a client may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asks {
    /// What a key holds.
    Get,
    /// That it holds something.
    Set,
    /// That it holds nothing.
    Delete,
    /// That it holds something if it held nothing.
    Add,
    /// That it holds one more.
    Increment,
}

/// What the operator, or what proposes changes for him, may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Both lists count.
    Join,
    /// The new list is the list.
    Finish,
    /// The list of before is the list.
    Undo,
    /// All is forgotten.
    Reset,
}

/// A step.
#[derive(Clone, PartialEq)]
pub enum Action {
    /// A message comes.
    Deliver(Sealed<Flight>),
    /// A node hears of an epoch.
    See(NodeId, usize),
    /// What a node has written is kept.
    Keep(NodeId),
    /// Some time has passed for a node.
    Tick(NodeId),
    /// A client asks a node.
    Ask(NodeId, Level, Asks, u8),
    /// A node drops a record.
    Evict(NodeId, u8),
    /// A node starts again, with so much of what it wrote and does not know to be kept, or with nothing.
    Restart(NodeId, Option<usize>),
    /// A node is taken for Down.
    Down(NodeId),
    /// The topology hears a report.
    Hear(NodeId, Incarnation, Report),
    /// The topology is told to do something.
    Control(Control),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(flight) => {
                let ((from, _), (to, _)) = (flight.from, flight.to);
                let message = &flight.message;
                write!(
                    f,
                    "{from} to {to} in term {}: {:?}",
                    message.term, message.body
                )
            }
            Self::See(node, epoch) => write!(f, "{node} hears of epoch {epoch}"),
            Self::Keep(node) => write!(f, "{node} keeps what it has written"),
            Self::Tick(node) => write!(f, "{node} says again what was not answered"),
            Self::Ask(node, level, asks, key) => {
                let key = char::from(*key);
                write!(f, "{node} is asked to {asks:?} {key} at {level:?}")
            }
            Self::Evict(node, key) => write!(f, "{node} drops {}", char::from(*key)),
            Self::Restart(node, None) => write!(f, "{node} starts again with nothing"),
            Self::Restart(node, Some(_)) => write!(f, "{node} starts again"),
            Self::Down(node) => write!(f, "{node} is taken for Down"),
            Self::Hear(node, _, report) => write!(f, "{node} reports {report:?}"),
            Self::Control(control) => write!(f, "{control:?}"),
        }
    }
}

/// The protocol from one start on.
pub struct Protocol {
    /// What is the same everywhere.
    pub setting: Arc<Setting>,
    /// From where, and what may happen.
    pub configuration: &'static Configuration,
    /// The start.
    pub start: World,
}

impl Protocol {
    /// What a step makes of a state; none if nothing comes of it.
    fn step(&self, last: &World, action: Action) -> Option<World> {
        let setting = &*self.setting;
        let mut world = last.clone();
        let spent = &mut world.budget;
        let is_any = match action {
            Action::Deliver(flight) => world.deliver(setting, flight),
            Action::See(node, epoch) => world.see(setting, node, epoch),
            Action::Keep(node) => world.keep(setting, node),
            Action::Tick(node) => {
                spent.ticks -= 1;
                world.tick(setting, node)
            }
            Action::Ask(node, level, asks, key) => {
                spent.requests -= 1;
                let value = last.ghost.requests + 1;
                let request = request(asks, key, value);
                world.ask(setting, node, level, request)
            }
            Action::Evict(node, key) => {
                spent.evictions -= 1;
                world.evict(setting, node, key)
            }
            Action::Restart(node, survive) => {
                match survive {
                    Some(_) => spent.crashes -= 1,
                    None => spent.amnesias -= 1,
                }
                world.restart(setting, node, survive);
                true
            }
            Action::Down(node) => {
                spent.downs -= 1;
                world.down(setting, node)
            }
            Action::Hear(node, incarnation, report) => {
                spent.commands -= 1;
                world.hear(setting, node, incarnation, report)
            }
            Action::Control(control) => {
                spent.commands -= 1;
                world.control(setting, control)
            }
        };
        (is_any && self.is_within(&world)).then_some(world)
    }

    /// No node has asked for more copies than it may.
    fn is_within(&self, world: &World) -> bool {
        !world.network.iter().any(|flight| {
            matches!(flight.message.body, Body::Pull { id, .. } if id > self.setting.copies)
        })
    }
}

/// As a table takes it.
pub fn request(asks: Asks, key: u8, value: u64) -> Request {
    let key = vec![key];
    match asks {
        Asks::Get => Request::Get(key),
        Asks::Set => Request::Set(key, value),
        Asks::Delete => Request::Delete(key),
        Asks::Add => Request::Add(key, value),
        Asks::Increment => Request::Increment(key),
    }
}

impl World {
    /// Rightly or not.
    pub fn down(&mut self, setting: &Setting, node: NodeId) -> bool {
        let known = &self.agreed.topology().nodes()[&node];
        let incarnation = known.incarnation;
        known.state != State::Down && self.command(setting, &Command::Down(node, incarnation))
    }

    /// What the topology does about a report.
    pub fn hear(
        &mut self,
        setting: &Setting,
        of: NodeId,
        incarnation: Incarnation,
        report: Report,
    ) -> bool {
        self.reports.remove(&(of, incarnation, report));
        let node = self.agreed.topology().nodes()[&of];
        let current = self.agreed.topology().placement(partition()).term;
        match report {
            Report::Opened(term) => {
                let is_up = self.up(setting, of, incarnation);
                let opened = Command::Opened(vec![(partition(), term)]);
                self.command(setting, &opened) || is_up
            }
            Report::Aligned(term) => {
                let remembers = term == current && node.amnesia > 0 && node.amnesia <= term;
                let command = Command::Remembers(of, incarnation);
                let remembers = remembers && self.command(setting, &command);
                let is_with_leader = term == current || node.state == State::Aligning;
                remembers || is_with_leader && self.up(setting, of, incarnation)
            }
        }
    }

    /// A node is Up, and leads at once if it is to: before who leads has come to rest, which is the worst that can be.
    fn up(&mut self, setting: &Setting, of: NodeId, incarnation: Incarnation) -> bool {
        let is_up = self.command(setting, &Command::Up(of, incarnation));
        let heirs = self.agreed.topology().heirs();
        if !heirs.is_empty() {
            self.command(setting, &Command::Lead(heirs));
        }
        is_up
    }

    /// A change of the replicas goes on, or all is forgotten.
    pub fn control(&mut self, setting: &Setting, control: Control) -> bool {
        let all = vec![partition()];
        let command = match control {
            Control::Join => Command::Join(all),
            Control::Finish => Command::Finish(all),
            Control::Undo => Command::Undo(all),
            Control::Reset => Command::Reset(all),
        };
        let has_changed = self.command(setting, &command);
        let epoch = self.agreed.topology().epoch();
        let joined = self.ghost.joined;
        if has_changed && control == Control::Join {
            let mut ghost = Ghost::clone(&self.ghost);
            ghost.joined = Some(epoch);
            self.ghost = Sealed::new(ghost);
        }
        let is_open = || {
            let since = joined.unwrap_or(0);
            self.ghost.opened.range(since..).next().is_some()
        };
        if has_changed && control == Control::Finish && !is_open() {
            self.broken = Some(Law::Final);
        }
        has_changed
    }

    fn budget_for(&self, control: Control) -> bool {
        let placement = self.agreed.topology().placement(partition());
        let is_joint = placement.change.as_ref().map(|change| change.is_joint);
        match control {
            Control::Join => is_joint == Some(false),
            Control::Finish => is_joint == Some(true),
            Control::Undo => is_joint.is_some(),
            Control::Reset => true,
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        let Budget {
            requests,
            evictions,
            crashes,
            amnesias,
            downs,
            commands,
            ticks,
        } = world.budget;
        actions.extend(world.network.iter().cloned().map(Action::Deliver));
        let newest = world.agreed.epoch();
        for (place, node) in world.nodes.iter().enumerate() {
            let id = id(place);
            // The next one, and the newest.
            if node.epoch < newest {
                actions.push(Action::See(id, node.epoch + 1));
            }
            if node.epoch + 1 < newest {
                actions.push(Action::See(id, newest));
            }
            if node.table.unkept() > 0 {
                actions.push(Action::Keep(id));
            }
            if ticks > 0 {
                actions.push(Action::Tick(id));
            }
            if requests > 0 {
                for &(asks, key, level) in self.configuration.menu {
                    actions.push(Action::Ask(id, level, asks, key));
                }
            }
            if evictions > 0 {
                let records = node.table.map.now.records.iter();
                let commit = node.table.map.now.progress.commit;
                let may = records.filter(|(_, (version, _))| version.seq() <= commit);
                actions.extend(may.map(|(key, _)| Action::Evict(id, key[0])));
            }
            if crashes > 0 {
                let survive = 0..=node.table.unkept();
                actions.extend(survive.map(|survive| Action::Restart(id, Some(survive))));
            }
            if amnesias > 0 {
                actions.push(Action::Restart(id, None));
            }
            if downs > 0 {
                actions.push(Action::Down(id));
            }
        }
        if commands > 0 {
            let reports = world.reports.iter();
            actions.extend(reports.map(|&(node, start, report)| Action::Hear(node, start, report)));
            let controls = self.configuration.controls.iter().copied();
            let may = controls.filter(|&control| world.budget_for(control));
            actions.extend(may.map(Action::Control));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        self.step(last, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! always {
            ($($name:literal, $law:ident;)*) => {
                vec![$(Property::always($name, |_, world: &World| world.broken != Some(Law::$law)),)*]
            };
        }
        let mut properties = always![
            "no answer is older than what was known", Claim;
            "what is shown is committed", Shown;
            "a table has the newest of its order, or nothing up to the horizon", Table;
            "horizon, commit and last stand in order and only grow", Bounds;
            "what is committed stays", Committed;
            "what is committed is kept by a quorum", Quorum;
            "a version is one mutation", OneMutation;
            "a term is started once", OneStart;
            "an order is what its history says", Order;
            "a change ends after its joint part was open", Final;
            "the machine's assertions hold", Assert;
        ];
        properties.extend([
            Property::sometimes(SHOWS, |protocol: &Self, world: &World| {
                world.ghost.floors() != protocol.start.ghost.floors()
            }),
            Property::sometimes(SECOND_TERM, |_, world: &World| {
                world
                    .ghost
                    .committed
                    .values()
                    .any(|committed| committed.windows(2).any(|pair| pair[0].1 != pair[1].1))
            }),
            Property::sometimes(FULL_COPY, |_, world: &World| world.has_end(true)),
            Property::sometimes(PART_COPY, |_, world: &World| world.has_end(false)),
            Property::sometimes(GENERATION, |protocol: &Self, world: &World| {
                let generation =
                    |world: &World| world.agreed.topology().placement(partition()).generation;
                let begun = world.ghost.opened.range(generation(world)..).next();
                generation(world) > generation(&protocol.start) && begun.is_some()
            }),
            Property::sometimes(CHANGE, |protocol: &Self, world: &World| {
                let of = |world: &World| world.agreed.topology().placement(partition()).old.clone();
                of(world) != of(&protocol.start)
            }),
        ]);
        properties
    }
}

impl World {
    fn has_end(&self, full: bool) -> bool {
        self.network.iter().any(|flight| {
            matches!(&flight.message.body, Body::Part { is_full, end: Some(_), .. } if *is_full == full)
        })
    }
}
