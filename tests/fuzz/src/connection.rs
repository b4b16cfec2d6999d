//! What passes through a server's connection at its end.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use kontiki::serve::farewell::Farewell;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::source::Source;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0farewell";
const ANSWER: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0farewell";
/// What a server says. The PING is the fourth.
const SAID: &[&[u8]] = &[
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\x0c\0\0\0\0\0\x01not the last",
    b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0",
    PING,
    b"\0\0\x03\0\0\0\0\0\x01one",
    b"\0\0\0\x04\x01\0\0\0\0",
    b"\0\0\x08\x06\0\0\0\0\0another.",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0",
];
const ASKED: usize = 3;

/// A connection on which only so many bytes pass at once.
struct Wire<'b> {
    client: Cell<&'b [u8]>,
    server: RefCell<Vec<u8>>,
    piece: Cell<usize>,
}

impl AsyncRead for &Wire<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let client = self.client.get();
        let (now, later) = client.split_at(self.piece.get().min(buffer.remaining()).min(client.len()));
        buffer.put_slice(now);
        self.client.set(later);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for &Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.piece.get().min(bytes.len());
        self.server.borrow_mut().extend_from_slice(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, &parts.iter().flat_map(|part| part.iter()).copied().collect::<Vec<u8>>())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn now<T>(poll: Poll<io::Result<T>>) -> T {
    match poll {
        Poll::Ready(Ok(done)) => done,
        Poll::Ready(Err(error)) => panic!("{error}"),
        Poll::Pending => panic!("waits for a wire that is ready"),
    }
}

/// Where the answer begins in what a client sends, if it is a frame that begins where `from` is or later.
fn answer(client: &[u8], from: usize) -> Option<usize> {
    let mut at = PREFACE.len();
    while let Some([high, middle, low, ..]) = client.get(at..) {
        if at >= from && client[at..].starts_with(ANSWER) {
            return Some(at);
        }
        at += 9 + u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    }
    None
}

/// The input is how much passes in each turn, then what the client sends. All of it comes through, but for the first
/// answer to the PING, which asks for it once more between two frames.
pub fn farewell(bytes: &[u8]) {
    let mut source = Source(bytes);
    let count = 1 + source.byte() % 8;
    let turns: Vec<usize> = (0..count).map(|_| source.byte()).collect();
    let client = [PREFACE, source.0].concat();
    let said = SAID.concat();
    let ends: Vec<usize> = (1..=SAID.len()).map(|frames| SAID[..frames].concat().len()).collect();
    let mut cx = Context::from_waker(Waker::noop());

    let wire = Wire { client: Cell::new(&client), server: RefCell::default(), piece: Cell::new(1) };
    let mut connection = Farewell::new(&wire);
    let (mut read, mut written, mut asked) = (Vec::new(), 0, None);
    for turn in turns.into_iter().cycle() {
        wire.piece.set(1 + turn % 32);
        let upto = (written + turn / 8).min(said.len());
        let (first, second) = said[written..upto].split_at((upto - written) / 2);
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        written += match turn % 2 {
            0 => now(Pin::new(&mut connection).poll_write(&mut cx, &said[written..upto])),
            _ => now(Pin::new(&mut connection).poll_write_vectored(&mut cx, &parts)),
        };
        if asked.is_none() && written >= ends[ASKED] {
            asked = Some(client.len() - wire.client.get().len());
        }
        let mut buffer = [0; 64];
        let mut buffer = ReadBuf::new(&mut buffer[..1 + turn / 4]);
        now(Pin::new(&mut connection).poll_read(&mut cx, &mut buffer));
        read.extend_from_slice(buffer.filled());
        if buffer.filled().is_empty() && (written == said.len() || turn < 8) {
            break;
        }
    }
    now(Pin::new(&mut connection).poll_flush(&mut cx));

    let mut passed = client.clone();
    let answered = asked.and_then(|asked| answer(&client, asked));
    if let Some(at) = answered {
        passed.drain(at..at + ANSWER.len());
    }
    // A client that is gone in the midst of its answer has not answered.
    let missing = passed.strip_prefix(&read[..]).expect("what the client sent");
    assert!(missing.is_empty() || asked.is_some() && answered.is_none() && ANSWER.starts_with(missing), "{missing:?}");
    let server = wire.server.take();
    let again = |end: &usize| [&said[..*end], PING, &said[*end..written]].concat() == server;
    match answered {
        None => assert_eq!(server, said[..written]),
        // The frame that was under way then is not over.
        Some(_) if server == said[..written] => assert!(!ends.contains(&written)),
        Some(_) => assert!(ends[ASKED..].iter().filter(|end| **end <= written).any(again)),
    }
}
