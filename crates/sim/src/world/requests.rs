//! What clients of the world ask, and what becomes of it: whom they ask, what they wait for, and when they give up.

use super::*;

/// What the clients do.
impl<S: Store> World<S> {
    pub(super) fn waits_for(&self, client: usize, number: u64) -> bool {
        let operation = self.clients.all[client].operation.as_ref();
        operation.is_some_and(|operation| operation.number == number)
    }

    pub(super) fn think(&mut self, client: usize) {
        let is_silent = self.plan.silent.contains(&client);
        if self.is_closing || is_silent || self.clients.operations >= self.plan.operations {
            return;
        }
        let operation = self.clients.begin(client, self.now_ms);
        let (number, until_ms) = (operation.number, operation.deadline_ms);
        note!(
            self,
            "client {client} wants {number}: {:?} {:?} {}",
            operation.asks.what,
            operation.level,
            String::from_utf8_lossy(&operation.asks.key)
        );
        // A while more than it is worth to the node, so that an answer may come.
        self.after(until_ms + 40 - self.now_ms, Moment::GiveUp(client, number));
        self.ask(client, number);
    }

    pub(super) fn ask(&mut self, client: usize, number: u64) {
        if !self.waits_for(client, number) {
            return;
        }
        self.clients.request(client);
        let count = self.nodes.len() as u64 - 1;
        let asking = &mut self.clients.all[client];
        let operation = asking.operation.clone().expect("it waits for one");
        let (p, _) = operation.place;
        let reads_anywhere = operation.is_read() && operation.level == Level::One;
        let n = if reads_anywhere || asking.random.one_in(12) {
            asking.random.within(1, count) as usize
        } else {
            asking.leaders[p]
        };
        let wait_ms = asking.random.below(4);
        if self.nodes[n].is_running {
            self.work(wait_ms, n, Work::Request(client, Box::new(operation)));
        } else {
            self.tell(client, number, Reply::Refused, None);
        }
    }

    /// A node has a client's request.
    pub(super) fn serve(&mut self, n: usize, client: usize, operation: &Operation) {
        let (p, _) = operation.place;
        if operation.is_read() && operation.level == Level::One {
            self.coverage.rule(Rule::ReadAtOne);
            let told = self.nodes[n].slots[p].table.read(&operation.asks.key);
            self.tell(
                client,
                operation.number,
                Reply::Answer(Outcome::Told(told)),
                None,
            );
            return;
        }
        let waits_ms = operation.deadline_ms.saturating_sub(operation.began_ms);
        self.clients.ask(client, n, operation);
        self.work(waits_ms, n, Work::Expire(operation.request));
        note!(
            self,
            "{n}/{p} is asked {} for {}",
            operation.request,
            operation.number
        );
        let table = &mut self.nodes[n].slots[p].table;
        let before = table.progress().last;
        table.asked = Some(operation.asks.key.clone());
        let hash = table.store.hash(&operation.asks.key);
        let now_ms = self.nodes[n].clock.read(self.now_ms);
        S::request(&operation.asks, now_ms, hash, |request| {
            let input = Input::Request(operation.request, operation.level, request);
            self.give(n, p, input);
        });
        let last = self.nodes[n].slots[p].table.progress().last;
        if let Some(asked) = self.clients.asked.get_mut(&operation.request)
            && last > before
        {
            asked.stamped = Some(last);
        }
    }

    /// Others vouch for what a read has seen. The partition may be of another generation by now.
    pub(super) fn show(&mut self, n: usize, request: RequestId, reply: ReplyOf<S>) {
        self.answer_of(n, request, Answer::Reply(reply), None);
    }

    pub(super) fn answer(&mut self, n: usize, request: RequestId, answer: Answer<ReplyOf<S>>) {
        let place = self.clients.asked.get(&request).map(|asked| asked.place.0);
        let committed = place.map(|p| self.committed(n, p));
        self.answer_of(n, request, answer, committed);
    }

    /// How far the order of a partition is committed, in the generation that a node has.
    pub(super) fn committed(&self, n: usize, p: usize) -> u64 {
        let generation = self.nodes[n].slots[p].table.state().generation;
        self.ledgers[p].borrow().committed(generation)
    }

    /// Where so much is committed; none where what is answered was seen to be.
    fn answer_of(
        &mut self,
        n: usize,
        request: RequestId,
        answer: Answer<ReplyOf<S>>,
        committed: Option<u64>,
    ) {
        let asked = self.clients.asked.get(&request);
        let told = match (&answer, asked) {
            (Answer::Reply(reply), Some(asked)) => {
                let told = S::told(asked.what, reply);
                // A delete does not say in which version it was made, nor a condition that fails what it found; who looks from
                // outside knows.
                let version = told.version.or(asked.stamped);
                let ledger = self.ledgers[asked.place.0].borrow();
                let value = told.value.or_else(|| ledger.value(version?));
                Some(Told {
                    version,
                    value,
                    ..told
                })
            }
            _ => None,
        };
        note!(self, "{n} answers {request}: {answer:?}");
        let asked = self.clients.answer(request, told);
        let (p, _) = asked.place;
        if let (Answer::Reply(_), Some(stamped)) = (&answer, asked.stamped) {
            let by = self.nodes[n].id;
            self.ledgers[p].borrow_mut().acknowledge(stamped, by);
        }
        if let (Some(told), true) = (told, asked.level != Level::One)
            && let (Some(version), Some(committed)) = (told.version, committed)
        {
            // Invariant 9.
            assert!(
                version.seq() <= committed,
                "{version} is shown, and {committed} is committed"
            );
        }
        let outcome = match answer {
            Answer::Reply(_) => {
                self.coverage.rule(match asked.level {
                    Level::One => Rule::One,
                    Level::Quorum => Rule::Quorum,
                    Level::All => Rule::All,
                });
                Outcome::Told(told.expect("it is one"))
            }
            Answer::NotStamped | Answer::NoRoom => {
                self.coverage.rule(Rule::NotStamped);
                Outcome::Never
            }
            Answer::Unknown => {
                self.coverage.rule(Rule::Unknown);
                Outcome::Unknown
            }
        };
        let leader = self.nodes[n].slots[p].view.placement.leader;
        let leader = leader.map(|(node, _)| node.0 as usize);
        self.tell(
            asked.client,
            asked.operation,
            Reply::Answer(outcome),
            leader,
        );
    }

    pub(super) fn tell(&mut self, client: usize, number: u64, reply: Reply, leader: Option<usize>) {
        let wait_ms = self.random.below(4);
        self.after(wait_ms, Moment::Told(client, number, reply, leader));
    }

    pub(super) fn told(&mut self, client: usize, number: u64, reply: Reply, leader: Option<usize>) {
        if !self.waits_for(client, number) {
            return;
        }
        let count = self.nodes.len() as u64 - 1;
        let asking = &mut self.clients.all[client];
        let operation = asking.operation.as_ref().expect("it waits for one");
        let (p, _) = operation.place;
        // Planted: what may have been done is asked for again.
        let tries_again = self.bugs.has(17);
        let repeats = operation.is_read() && reply == Reply::Broken || tries_again;
        let is_over = self.now_ms >= operation.deadline_ms;
        match reply {
            Reply::Answer(outcome @ Outcome::Told(_)) => self.end(client, outcome),
            Reply::Answer(Outcome::Unknown) if !tries_again => self.end(client, Outcome::Unknown),
            Reply::Broken if !repeats => self.end(client, Outcome::Unknown),
            _ if is_over => self.end(client, Outcome::Never),
            _ => {
                asking.leaders[p] = match leader {
                    Some(leader) if !asking.random.one_in(10) => leader,
                    _ => asking.random.within(1, count) as usize,
                };
                let wait_ms = asking.random.within(2, 12);
                self.after(wait_ms, Moment::Ask(client, number));
            }
        }
    }

    pub(super) fn end(&mut self, client: usize, outcome: Outcome) {
        self.clients.end(client, self.now_ms, outcome);
        let thinks_ms = self.plan.thinks_ms;
        let wait_ms = self.clients.all[client].random.within(0, thinks_ms);
        self.after(wait_ms, Moment::Think(client));
    }

    /// A node has ended: whoever has asked it anything hears that.
    pub(super) fn break_requests(&mut self, n: usize) {
        let asked = self.clients.asked.iter();
        let broken: Vec<RequestId> = asked
            .filter(|(_, asked)| asked.node == n)
            .map(|(&request, _)| request)
            .collect();
        for request in broken {
            let asked = self.clients.asked.remove(&request).expect("it is there");
            self.tell(asked.client, asked.operation, Reply::Broken, None);
        }
    }
}
