//! Who may run now. A `Permit` is the right to run one execution; a `Seat` is the right of one container to exist.
//!
//! Permits are few (`MAX_CONCURRENT`). Whoever finds none waits in a bounded queue that is fair between clients:
//! each client has a line of its own, and the lines take turns. A permit goes straight from the one who gives it
//! back to the one whose turn it is, so a newcomer cannot slip in between.
//!
//! Seats bound the containers, waiting ones included; a seat's number names the container and gives it its uid.
//! Both are values that are moved into what they permit and come back when that is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::id::Client;

/// Why somebody may not even wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the queue is full")]
    QueueFull,
    #[error("this client has as many executions running and waiting as it may have")]
    TooManyOfClient,
    #[error("the server is about to stop")]
    Draining,
}

#[derive(Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    max_queue: usize,
    max_per_client: usize,
    load: watch::Sender<Load>,
}

/// How busy we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub running: usize,
    pub queued: usize,
}

#[derive(Default)]
struct State {
    free: usize,
    running: usize,
    queued: usize,
    draining: bool,
    next_ticket: u64,
    /// Running and waiting, by client.
    counts: HashMap<Client, usize>,
    lines: HashMap<Client, VecDeque<Waiter>>,
    /// Clients with a line, in the order of their turns.
    turns: VecDeque<Client>,
}

struct Waiter {
    ticket: u64,
    place: Place,
    grant: oneshot::Sender<Permit>,
    position: watch::Sender<usize>,
}

/// One of a client's `MAX_PER_CLIENT`.
struct Place {
    client: Client,
    shared: Arc<Shared>,
}

/// The right to run one execution. Dropping it lets the next one run.
pub struct Permit {
    place: Place,
}

/// A place in the queue, or already a permit.
pub struct Ticket {
    number: u64,
    client: Client,
    shared: Arc<Shared>,
    grant: oneshot::Receiver<Permit>,
    position: watch::Receiver<usize>,
}

impl Admission {
    pub fn new(max_concurrent: usize, max_queue: usize, max_per_client: usize) -> Self {
        let state = State { free: max_concurrent, ..State::default() };
        Admission {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                max_queue,
                max_per_client,
                load: watch::Sender::new(Load::default()),
            }),
        }
    }

    /// A place in the queue for one execution of this client.
    pub fn enter(&self, client: &Client) -> Result<Ticket, Refusal> {
        let shared = &self.shared;
        let mut state = shared.lock();
        if state.draining {
            return Err(Refusal::Draining);
        }
        if state.counts.get(client).is_some_and(|count| *count >= shared.max_per_client) {
            return Err(Refusal::TooManyOfClient);
        }
        if state.free == 0 && state.queued >= shared.max_queue {
            return Err(Refusal::QueueFull);
        }
        *state.counts.entry(client.clone()).or_default() += 1;
        let place = Place { client: client.clone(), shared: Arc::clone(shared) };
        let (grant, granted) = oneshot::channel();
        let (position, watched) = watch::channel(0);
        let number = state.next_ticket;
        state.next_ticket += 1;
        let waiter = Waiter { ticket: number, place, grant, position };
        // Nobody waits while a permit is free: it would have been handed on.
        if state.free > 0 {
            state.free -= 1;
            state.running += 1;
            let permit = Permit { place: waiter.place };
            assert!(waiter.grant.send(permit).is_ok(), "the receiver is in this function");
        } else {
            if !state.lines.contains_key(client) {
                state.turns.push_back(client.clone());
            }
            state.lines.entry(client.clone()).or_default().push_back(waiter);
            state.queued += 1;
            state.tell_positions();
        }
        shared.publish(&state);
        drop(state);
        Ok(Ticket {
            number,
            client: client.clone(),
            shared: Arc::clone(shared),
            grant: granted,
            position: watched,
        })
    }

    /// From now on nobody is admitted; who waits goes on waiting.
    pub fn drain(&self) {
        self.shared.lock().draining = true;
    }

    pub fn load(&self) -> watch::Receiver<Load> {
        self.shared.load.subscribe()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    fn publish(&self, state: &State) {
        let load = Load { running: state.running, queued: state.queued };
        self.load.send_if_modified(|old| std::mem::replace(old, load) != load);
    }

    /// A permit has come back: whose turn is it?
    fn hand_on(self: &Arc<Self>) {
        let next = {
            let mut state = self.lock();
            let next = state.take_turn();
            if next.is_none() {
                state.free += 1;
                state.running -= 1;
            }
            state.tell_positions();
            self.publish(&state);
            next
        };
        // Outside the lock: if the ticket is gone, the permit comes back and looks for the next in turn.
        if let Some(waiter) = next {
            let _ = waiter.grant.send(Permit { place: waiter.place });
        }
    }
}

impl State {
    fn take_turn(&mut self) -> Option<Waiter> {
        let client = self.turns.pop_front()?;
        let line = self.lines.get_mut(&client)?;
        let waiter = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.queued -= 1;
        Some(waiter)
    }

    /// Position 1 is next. Round by round, one of each line.
    fn tell_positions(&self) {
        let mut position = 0;
        let longest = self.lines.values().map(VecDeque::len).max().unwrap_or(0);
        for round in 0..longest {
            for client in &self.turns {
                if let Some(waiter) = self.lines.get(client).and_then(|line| line.get(round)) {
                    position += 1;
                    waiter.position.send_if_modified(|old| std::mem::replace(old, position) != position);
                }
            }
        }
    }
}

impl Ticket {
    /// Waits for the permit. Cancel-safe. Must not be called again once it has returned.
    pub async fn permit(&mut self) -> Permit {
        (&mut self.grant).await.expect("a waiter is answered or its ticket is dropped")
    }

    /// Place in the queue, from 1; 0 once it runs.
    pub fn position(&self) -> watch::Receiver<usize> {
        self.position.clone()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let left = {
            let mut state = self.shared.lock();
            let Some(line) = state.lines.get_mut(&self.client) else { return };
            let Some(at) = line.iter().position(|waiter| waiter.ticket == self.number) else { return };
            let left = line.remove(at);
            if line.is_empty() {
                state.lines.remove(&self.client);
                state.turns.retain(|client| client != &self.client);
            }
            state.queued -= 1;
            state.tell_positions();
            self.shared.publish(&state);
            left
        };
        // Its place locks again when it is dropped.
        drop(left);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.place.shared.hand_on();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(count) = state.counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                state.counts.remove(&self.client);
            }
        }
    }
}

/// The first uid of containers. Far from people and services; each seat has one of its own, so that no per-uid limit
/// or kernel keyring is shared by two containers.
const FIRST_UID: u32 = 62_000;

/// The seats for containers.
#[derive(Clone)]
pub struct Seats {
    free: Arc<Mutex<VecDeque<u32>>>,
    semaphore: Arc<Semaphore>,
}

/// The right of one container to exist.
pub struct Seat {
    number: u32,
    free: Arc<Mutex<VecDeque<u32>>>,
    _counted: OwnedSemaphorePermit,
}

impl Seats {
    pub fn new(count: u32) -> Self {
        Seats {
            free: Arc::new(Mutex::new((0..count).collect())),
            semaphore: Arc::new(Semaphore::new(count as usize)),
        }
    }

    pub async fn take(&self) -> Seat {
        let counted = Arc::clone(&self.semaphore).acquire_owned().await.expect("never closed");
        // The one that has been free longest: what an engine still does about its last container is over.
        let number = self.free.lock().expect("no panic under lock").pop_front().expect("counted");
        Seat { number, free: Arc::clone(&self.free), _counted: counted }
    }
}

impl Seat {
    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn uid(&self) -> u32 {
        FIRST_UID + self.number
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Before the semaphore's permit comes back, which is dropped after this.
        self.free.lock().expect("no panic under lock").push_back(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn client(name: &str) -> Client {
        Client::new(name)
    }

    fn permit_now(ticket: &mut Ticket) -> Option<Permit> {
        ticket.permit().now_or_never()
    }

    #[test]
    fn permits_are_handed_from_one_to_the_next_in_turns() {
        let admission = Admission::new(1, 10, 10);
        let running = permit_now(&mut admission.enter(&client("a")).expect("admitted"));
        let enter = |name| admission.enter(&client(name)).expect("admitted");
        let (mut a1, mut a2, mut b1) = (enter("a"), enter("a"), enter("b"));
        let positions = [&a1, &a2, &b1].map(|ticket| *ticket.position().borrow());
        assert_eq!(positions, [1, 3, 2], "b does not wait for all of a");
        drop(running);
        let first = permit_now(&mut a1).expect("the first in line");
        assert!(permit_now(&mut b1).is_none());
        drop(first);
        let second = permit_now(&mut b1).expect("b's turn");
        drop(second);
        assert!(permit_now(&mut a2).is_some());
        assert_eq!(admission.load().borrow().queued, 0);
    }

    #[test]
    fn who_leaves_the_queue_holds_nobody_up() {
        let admission = Admission::new(1, 10, 2);
        let mut first = admission.enter(&client("a")).expect("admitted");
        let running = permit_now(&mut first).expect("free");
        let leaving = admission.enter(&client("a")).expect("admitted");
        assert!(matches!(admission.enter(&client("a")), Err(Refusal::TooManyOfClient)));
        let mut staying = admission.enter(&client("b")).expect("admitted");
        drop(leaving);
        assert_eq!(*staying.position().borrow(), 1);
        assert!(admission.enter(&client("a")).is_ok(), "the place is free again");
        drop(running);
        assert!(permit_now(&mut staying).is_some());
    }

    #[test]
    fn a_permit_granted_to_somebody_who_has_left_goes_on() {
        let admission = Admission::new(1, 10, 10);
        let running = permit_now(&mut admission.enter(&client("a")).expect("admitted"));
        let gone = admission.enter(&client("b")).expect("admitted");
        drop(running);
        drop(gone);
        assert_eq!(*admission.load().borrow(), Load::default());
        assert!(permit_now(&mut admission.enter(&client("c")).expect("admitted")).is_some());
    }

    #[test]
    fn the_queue_is_bounded_and_closes_when_draining() {
        let admission = Admission::new(1, 1, 10);
        let _running = permit_now(&mut admission.enter(&client("a")).expect("admitted"));
        let _waiting = admission.enter(&client("a")).expect("admitted");
        assert!(matches!(admission.enter(&client("b")), Err(Refusal::QueueFull)));
        admission.drain();
        assert!(matches!(admission.enter(&client("b")), Err(Refusal::Draining)));
    }

    #[test]
    fn a_seat_is_taken_by_one_at_a_time() {
        let seats = Seats::new(2);
        let first = seats.take().now_or_never().expect("free");
        let second = seats.take().now_or_never().expect("free");
        assert_ne!(first.uid(), second.uid());
        assert!(seats.take().now_or_never().is_none());
        let number = first.number();
        drop(first);
        assert_eq!(seats.take().now_or_never().expect("free again").number(), number);
    }
}
