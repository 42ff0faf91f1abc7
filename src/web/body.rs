//! Bodies of requests: JSON, each bounded, and bounded together, since any number of connections may send at the
//! same time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// How long a client may take to send its body.
const DEADLINE: Duration = Duration::from_secs(60);

/// All bodies that are being received or read, in KiB. Much more than one, much less than a machine has.
const TOGETHER_KIB: usize = 256 * 1024;
const KIB: usize = 1024;

#[derive(Clone)]
pub struct Bodies {
    limit: u64,
    room: Arc<Semaphore>,
}

/// A body that was received. It takes its part of the room until it is dropped.
pub struct Received {
    bytes: BytesMut,
    _room: Option<OwnedSemaphorePermit>,
}

impl Received {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// `limit`: bytes of one body.
    pub fn new(limit: u64) -> Self {
        Bodies { limit, room: Arc::new(Semaphore::new(TOGETHER_KIB)) }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Reads the body of a JSON request. A type that is not JSON is refused, none at all is not: some clients send
    /// none. A body over the limit is refused before it is read whole, by its announced length where there is one.
    pub async fn read_json<B: Buf>(
        &self,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Result<Received, Problem> {
        if let Some(kind) = headers.get(CONTENT_TYPE) {
            let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
            let json =
                kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json");
            if !json {
                let sentence = format!("the body is {kind:?}; send JSON with Content-Type: application/json");
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
            }
        }
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.limit) {
            return Err(self.too_large());
        }
        tokio::time::timeout(DEADLINE, self.read(body)).await.unwrap_or_else(|_| {
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))
        })
    }

    async fn read<B: Buf>(
        &self,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Result<Received, Problem> {
        let (mut bytes, mut room) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        let mut body = std::pin::pin!(body);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("the body broke off"))?;
            bytes.extend_from_slice(chunk.chunk());
            if bytes.len() as u64 > self.limit {
                return Err(self.too_large());
            }
            // Room is taken for what has come, not for what was announced: announcing costs nothing.
            let taken = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let wanted = u32::try_from(bytes.len().div_ceil(KIB) - taken).expect("within the limit");
            let more = Arc::clone(&self.room)
                .try_acquire_many_owned(wanted)
                .map_err(|_| Problem::busy("too many large requests are being received; try again later"))?;
            match &mut room {
                None => room = Some(more),
                Some(room) => room.merge(more),
            }
        }
        Ok(Received { bytes, _room: room })
    }

    fn too_large(&self) -> Problem {
        Problem::too_large(format!("the body is larger than the {} bytes that are allowed", self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn body(bytes: usize) -> impl Stream<Item = Result<Bytes, warp::Error>> {
        futures_util::stream::iter([Ok(Bytes::from(vec![b' '; bytes])), Ok(Bytes::from_static(b"{}"))])
    }

    #[tokio::test]
    async fn bodies_take_room_until_they_are_done_with() {
        let bodies = Bodies::new(u64::MAX);
        let half = TOGETHER_KIB * KIB / 2;
        let first = bodies.read(body(half)).await.map_err(|problem| problem.detail().to_owned());
        assert_eq!(first.as_ref().map(|received| received.bytes().len()), Ok(half + 2));
        assert!(bodies.read(body(half)).await.is_err());
        drop(first);
        assert!(bodies.read(body(half)).await.is_ok());
    }
}
