//! Standard input on its way to a run: what the request brought and, when it is interactive, what follows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;

/// What is still to be read.
pub struct InputQueue {
    inner: Mutex<Pending>,
    more: Notify,
    limit: usize,
}

struct Pending {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    eof: bool,
    eof_taken: bool,
    /// What was taken, until it is settled that it will not be asked for again.
    taken: Option<Vec<Bytes>>,
    closed: bool,
}

/// Why further input is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputRefusal {
    #[error("the execution has ended")]
    Ended,
    #[error("the end of the input was already sent")]
    EofSent,
    #[error("the program has not read what was sent before; send less at a time")]
    Full,
}

/// What a run gets next.
#[derive(Debug, PartialEq)]
pub enum Piece {
    Bytes(Bytes),
    Eof,
}

impl InputQueue {
    pub fn new(first: Vec<u8>, interactive: bool, limit: usize) -> Self {
        let bytes = first.len();
        let chunks = if first.is_empty() { VecDeque::new() } else { VecDeque::from([first.into()]) };
        InputQueue {
            inner: Mutex::new(Pending {
                chunks,
                bytes,
                eof: !interactive,
                eof_taken: false,
                taken: Some(Vec::new()),
                closed: false,
            }),
            more: Notify::new(),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.inner.lock().expect("no code panics while it holds this lock")
    }

    pub fn push(&self, bytes: Vec<u8>, eof: bool) -> Result<(), InputRefusal> {
        let mut pending = self.lock();
        if pending.closed {
            return Err(InputRefusal::Ended);
        }
        if pending.eof {
            return Err(InputRefusal::EofSent);
        }
        if pending.bytes + bytes.len() > self.limit {
            return Err(InputRefusal::Full);
        }
        pending.bytes += bytes.len();
        if !bytes.is_empty() {
            pending.chunks.push_back(bytes.into());
        }
        pending.eof = eof;
        drop(pending);
        self.more.notify_one();
        Ok(())
    }

    /// The execution has ended: nobody will read any more.
    pub fn close(&self) {
        let mut pending = self.lock();
        pending.closed = true;
        // What was taken shares its memory with the request's body.
        pending.chunks.clear();
        pending.taken = None;
        pending.bytes = 0;
    }

    /// At most `limit` bytes, or the end; `None` when nothing has arrived. After the end, `None` for ever.
    pub fn take(&self, limit: usize) -> Option<Piece> {
        let pending = &mut *self.lock();
        match pending.chunks.front_mut() {
            Some(chunk) if limit > 0 => {
                let piece = chunk.split_to(chunk.len().min(limit));
                if chunk.is_empty() {
                    pending.chunks.pop_front();
                }
                pending.bytes -= piece.len();
                if let Some(taken) = &mut pending.taken {
                    taken.push(piece.clone());
                }
                Some(Piece::Bytes(piece))
            }
            None if pending.eof && !pending.eof_taken => {
                pending.eof_taken = true;
                Some(Piece::Eof)
            }
            _ => None,
        }
    }

    /// What was taken was lost before any program could read it: it is there again.
    pub fn rewind(&self) {
        let pending = &mut *self.lock();
        pending.eof_taken = false;
        for piece in pending.taken.iter_mut().flat_map(|taken| taken.drain(..)).rev() {
            pending.bytes += piece.len();
            pending.chunks.push_front(piece);
        }
    }

    /// A program runs that may have read what was taken: it is never there again.
    pub fn settle(&self) {
        self.lock().taken = None;
    }

    /// Waits until there may be more to take. One waiter at a time; a push in between is not lost.
    pub async fn more(&self) {
        self.more.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_for_a_container_that_was_lost_is_there_again() {
        let input = InputQueue::new(b"abc".to_vec(), true, 10);
        input.push(b"de".to_vec(), true).expect("taken");
        let all = || std::iter::from_fn(|| input.take(2)).collect::<Vec<_>>();
        let pieces = ["ab", "c", "de"].map(|text| Piece::Bytes(Bytes::from_static(text.as_bytes())));
        let first = all();
        assert_eq!(first[..3], pieces);
        assert_eq!(first[3], Piece::Eof);
        input.rewind();
        assert_eq!(all(), first);
        input.rewind();
        input.settle();
        assert_eq!(all(), first);
        input.rewind();
        assert_eq!(input.take(2), Some(Piece::Eof), "only the end can be said again");
    }

    #[test]
    fn input_is_taken_in_order_and_ends_once() {
        let input = InputQueue::new(b"abc".to_vec(), true, 10);
        assert_eq!(input.take(2), Some(Piece::Bytes(Bytes::from_static(b"ab"))));
        assert_eq!(input.take(2), Some(Piece::Bytes(Bytes::from_static(b"c"))));
        assert_eq!(input.take(2), None);
        assert_eq!(input.push(vec![0; 11], false), Err(InputRefusal::Full));
        input.push(b"d".to_vec(), true).expect("taken");
        assert_eq!(input.push(b"e".to_vec(), false), Err(InputRefusal::EofSent));
        assert_eq!(input.take(9), Some(Piece::Bytes(Bytes::from_static(b"d"))));
        assert_eq!(input.take(9), Some(Piece::Eof));
        assert_eq!(input.take(9), None);
        assert_eq!(input.push(b"f".to_vec(), false), Err(InputRefusal::EofSent));
        input.close();
        assert_eq!(input.push(b"g".to_vec(), false), Err(InputRefusal::Ended));
    }
}
