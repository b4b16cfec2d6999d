//! Time between the GOAWAY that announces a connection's end and what comes after it.
//!
//! A server says twice that it takes no more: first without a last stream, then, a round trip later, with the last stream
//! that it has seen (RFC 9113, 6.8). h2 asks for that round trip with a PING right behind the first GOAWAY. A client that
//! reads both at once answers the PING before it sends what it had queued; its request comes too late then, and its library
//! may not try it again. So the PING is held back until the client can have read the GOAWAY alone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::Sleep;

/// Also what answers that are under way wait at most.
const PAUSE: Duration = Duration::from_millis(20);
/// A whole frame: no debug data, the highest stream that there can be, no error.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

enum State {
    /// The GOAWAY has not been seen.
    Before,
    /// It is on its way to the network.
    Said,
    Pause(Pin<Box<Sleep>>),
    After,
}

/// A connection that pauses once, behind its first GOAWAY.
pub struct Farewell<I> {
    io: I,
    /// Set before the GOAWAY is written.
    ending: Arc<AtomicBool>,
    state: State,
}

impl<I: Write + Unpin> Farewell<I> {
    pub fn new(io: I, ending: Arc<AtomicBool>) -> Farewell<I> {
        Farewell { io, ending, state: State::Before }
    }

    /// Waits for the pause to end, where there is one; then says whether a GOAWAY is to be looked for.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            match &mut self.state {
                State::Before => return Poll::Ready(Ok(self.ending.load(Ordering::Relaxed))),
                State::Said => {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                    self.state = State::Pause(Box::pin(tokio::time::sleep(PAUSE)));
                }
                State::Pause(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.state = State::After;
                }
                State::After => return Poll::Ready(Ok(false)),
            }
        }
    }

    /// Writes up to the end of the GOAWAY, if it is there.
    fn poll_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let end = bytes.windows(GOAWAY.len()).position(|frame| frame == GOAWAY).map(|at| at + GOAWAY.len());
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, &bytes[..end.unwrap_or(bytes.len())]))?;
        if end == Some(written) {
            self.state = State::Said;
        }
        Poll::Ready(Ok(written))
    }
}

impl<I: Read + Unpin> Read for Farewell<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: Write + Unpin> Write for Farewell<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_pause(cx))? {
            true => self.poll_last(cx, bytes),
            false => Pin::new(&mut self.io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_pause(cx))? {
            true => {
                let first = parts.iter().find(|part| !part.is_empty());
                self.poll_last(cx, first.map_or(&[], |part| part))
            }
            false => Pin::new(&mut self.io).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
