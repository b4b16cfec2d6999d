//! A second round trip between the GOAWAY that announces a connection's end and the one that ends it.
//!
//! A server says twice that it takes no more: first without a last stream, then, a round trip later, with the last stream
//! that it has seen (RFC 9113, 6.8). h2 asks for that round trip with a PING right behind the first GOAWAY. A client that
//! reads both at once may answer the PING before it sends what it had queued; its request comes too late then, and its
//! library may not try it again. So the first answer is kept from h2, and the same PING is sent once more: a client that
//! answers this one has long gone through the GOAWAY, however long it stood still before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HEADER: usize = 9;
const PING_FRAME: usize = HEADER + 8;
const PING: u8 = 6;
const ACK: u8 = 1;
const GOAWAY: u8 = 7;
/// What the client says before its first frame.
const PREFACE: usize = 24;
/// The highest stream that there can be.
const NO_LAST_STREAM: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];
/// Read at once while the answer is looked for.
const READ: usize = 4 << 10;

/// Where bytes stand between two frames (RFC 9113, 4.1).
struct Frames {
    /// The header and as much of the payload as a PING has.
    start: [u8; PING_FRAME],
    /// Bytes of the frame so far.
    at: usize,
}

impl Frames {
    fn new() -> Frames {
        Frames { start: [0; PING_FRAME], at: 0 }
    }

    /// The preface goes as the payload of a frame whose header has been.
    fn behind_preface() -> Frames {
        let mut frames = Frames { at: HEADER, ..Frames::new() };
        frames.start[2] = PREFACE as u8;
        frames
    }

    /// Bytes up to where more is known: the end of the header, or of the frame.
    fn rest(&self) -> usize {
        match self.at < HEADER {
            true => HEADER - self.at,
            false => {
                let [high, middle, low, ..] = self.start;
                HEADER + u32::from_be_bytes([0, high, middle, low]) as usize - self.at
            }
        }
    }

    /// Takes bytes, and shows the start of each frame at its end.
    fn pass(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.rest().min(bytes.len()));
            let kept = self.at.min(PING_FRAME)..(self.at + now.len()).min(PING_FRAME);
            self.start[kept.clone()].copy_from_slice(&now[..kept.len()]);
            self.at += now.len();
            bytes = later;
            if self.at >= HEADER && self.rest() == 0 {
                each(&self.start[..kept.end]);
                self.at = 0;
            }
        }
    }
}

enum State {
    Open,
    /// The GOAWAY has been written, the PING has not.
    Leaving,
    /// What of the answer has been read.
    Asked {
        answer: [u8; PING_FRAME],
        read: usize,
    },
    /// What of the second PING has been written.
    Again {
        ping: [u8; PING_FRAME],
        written: usize,
    },
    Over,
}

/// A server's connection that asks twice whether its client has read the GOAWAY.
pub struct Farewell<S> {
    stream: S,
    incoming: Frames,
    outgoing: Frames,
    state: State,
    /// Read while the answer was looked for.
    read: Vec<u8>,
}

impl<S> Farewell<S> {
    pub fn new(stream: S) -> Farewell<S> {
        Farewell {
            stream,
            incoming: Frames::behind_preface(),
            outgoing: Frames::new(),
            state: State::Open,
            read: Vec::new(),
        }
    }

    fn written(&mut self, bytes: &[u8]) {
        self.outgoing.pass(bytes, |frame| match (&self.state, frame) {
            (State::Open, [_, _, _, GOAWAY, _, _, _, _, _, last @ ..]) if last.starts_with(&NO_LAST_STREAM) => {
                self.state = State::Leaving;
            }
            (State::Leaving, &[_, _, _, PING, flags, ..]) if flags & ACK == 0 => {
                if let Ok(mut answer) = <[u8; PING_FRAME]>::try_from(frame) {
                    answer[4] = ACK;
                    self.state = State::Asked { answer, read: 0 };
                }
            }
            _ => {}
        });
    }

    /// Keeps what was read, but for the answer.
    fn take(&mut self, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            let State::Asked { answer, read } = &mut self.state else {
                self.read.extend_from_slice(&bytes[n..]);
                return;
            };
            // Where fewer have been read of the answer than of the frame, it is another.
            let likely = *read == self.incoming.at && answer.get(*read) == Some(byte);
            self.incoming.pass(&[*byte], |_| {});
            if likely {
                *read += 1;
            } else {
                self.read.extend_from_slice(&answer[..*read]);
                self.read.push(*byte);
                *read = 0;
            }
            if *read == PING_FRAME {
                let mut ping = *answer;
                ping[4] = 0;
                self.state = State::Again { ping, written: 0 };
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Farewell<S> {
    /// Writes the second PING, if it is time and the frame before it has ended.
    fn poll_again(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let State::Again { ping, written } = &mut self.state
            && self.outgoing.at == 0
        {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &ping[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => *written += more,
            }
            if *written == PING_FRAME {
                self.state = State::Over;
                // Where it can't be done now, h2 does it: it flushes at the end of each turn.
                let _ = Pin::new(&mut self.stream).poll_flush(cx)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Farewell<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() && matches!(this.state, State::Asked { .. }) {
            let mut bytes = [0; READ];
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
            if part.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.take(part.filled());
        }
        if let Poll::Ready(again) = this.poll_again(cx) {
            again?;
        }
        if !this.read.is_empty() {
            let given = this.read.len().min(buffer.remaining());
            buffer.put_slice(&this.read[..given]);
            this.read.drain(..given);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if matches!(this.state, State::Open | State::Leaving) {
            this.incoming.pass(&buffer.filled()[before..], |_| {});
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Farewell<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, mut bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_again(cx))?;
        if matches!(this.state, State::Again { .. }) {
            bytes = &bytes[..this.outgoing.rest().min(bytes.len())];
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        if !matches!(this.state, State::Over) {
            this.written(&bytes[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.state, State::Again { .. }) {
            let first = parts.iter().find(|part| !part.is_empty());
            return self.poll_write(cx, first.map_or(&[], |part| part));
        }
        let this = self.as_mut().get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, parts))?;
        if !matches!(this.state, State::Over) {
            let mut left = written;
            for part in parts {
                let now = left.min(part.len());
                this.written(&part[..now]);
                left -= now;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_again(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    const BODY: usize = 200_000;

    /// A stream that reads and writes only so many bytes at once, maybe from several buffers.
    struct Pieces(DuplexStream, usize, bool);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let mut bytes = vec![0; self.1.min(buffer.remaining())];
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut part))?;
            buffer.put_slice(part.filled());
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let piece = &bytes[..self.1.min(bytes.len())];
            Pin::new(&mut self.0).poll_write(cx, piece)
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            parts: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = parts.iter().flat_map(|part| part.iter()).take(self.1).copied().collect::<Vec<u8>>();
            self.poll_write(cx, &bytes)
        }

        fn is_write_vectored(&self) -> bool {
            self.2
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// A server that leaves when it is told to; its answers are `BODY` long.
    fn server(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        leave: oneshot::Receiver<()>,
    ) -> JoinHandle<hyper::Result<()>> {
        let answer = |_: Request<Incoming>| async {
            let body = (0..BODY).map(|n| (n / 3) as u8).collect::<Bytes>();
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(body)))
        };
        tokio::spawn(async move {
            let io = TokioIo::new(Farewell::new(stream));
            let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service_fn(answer));
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                result = connection.as_mut() => return result,
                _ = leave => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        })
    }

    /// The length of an answer, which is as it was sent.
    async fn body(response: h2::client::ResponseFuture) -> usize {
        let mut body = response.await.unwrap().into_body();
        let mut whole = Vec::new();
        while let Some(part) = body.data().await {
            let part = part.unwrap();
            body.flow_control().release_capacity(part.len()).unwrap();
            whole.extend_from_slice(&part);
        }
        assert!(whole.iter().enumerate().all(|(n, byte)| *byte == (n / 3) as u8));
        whole.len()
    }

    /// Requests before the server leaves, while its answers are on their way, and of a client that has stood still since.
    async fn all_are_answered(capacity: usize, piece: usize, vectored: bool) {
        let (near, far) = tokio::io::duplex(capacity);
        let (leave, left) = oneshot::channel();
        let server = server(Pieces(far, piece, vectored), left);
        let (mut requests, connection) = h2::client::handshake(near).await.unwrap();
        let mut connection = Box::pin(connection);
        let mut ask = || requests.send_request(Request::new(()), true).unwrap().0;
        tokio::select! {
            whole = body(ask()) => assert_eq!(whole, BODY),
            ended = &mut connection => panic!("{ended:?}"),
        }
        let begun = ask();
        for _ in 0..50 {
            assert!(tokio::time::timeout(Duration::ZERO, &mut connection).await.is_err());
        }
        leave.send(()).unwrap();
        // Time stands still, too, until nobody can go on.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let queued = ask();
        let (begun, queued, ended) = tokio::join!(body(begun), body(queued), connection);
        assert_eq!((begun, queued), (BODY, BODY));
        ended.unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_had_queued_while_it_stood_still_is_answered() {
        // No less than what both sides say before they listen.
        for (capacity, piece) in
            [(1 << 20, 1 << 20), (1 << 20, 1), (1 << 20, 7), (1_000, 17), (1_000, 50), (64, 5), (64, 64)]
        {
            for vectored in [false, true] {
                let all = tokio::time::timeout(Duration::from_secs(60), all_are_answered(capacity, piece, vectored));
                all.await.unwrap_or_else(|_| panic!("{piece} at once, {capacity} under way, {vectored}"));
            }
        }
    }

    async fn frame(stream: &mut DuplexStream) -> Vec<u8> {
        let mut frame = vec![0; HEADER];
        stream.read_exact(&mut frame).await.unwrap();
        frame.resize(HEADER + u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize, 0);
        stream.read_exact(&mut frame[HEADER..]).await.unwrap();
        frame
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_stream_is_named_after_the_second_answer() {
        let (mut client, far) = tokio::io::duplex(1 << 16);
        let (leave, left) = oneshot::channel();
        let server = server(far, left);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        leave.send(()).unwrap();
        let kinds = [frame(&mut client).await[3], frame(&mut client).await[3], frame(&mut client).await[3]];
        assert_eq!(kinds[0], 4, "settings");
        let mut first = frame(&mut client).await;
        while first[3] != PING {
            first = frame(&mut client).await;
        }
        let mut answer = first.clone();
        answer[4] = ACK;
        let mut other = answer.clone();
        *other.last_mut().unwrap() ^= 1;
        // Pieces of it, and others that begin as it does, are not the answer.
        client.write_all(&other).await.unwrap();
        client.write_all(&answer[..10]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(tokio::time::timeout(Duration::from_secs(1), client.read_u8()).await.is_err());
        client.write_all(&answer[10..]).await.unwrap();
        assert_eq!(frame(&mut client).await, first);
        assert!(tokio::time::timeout(Duration::from_secs(1), client.read_u8()).await.is_err());
        client.write_all(&answer).await.unwrap();
        let last = frame(&mut client).await;
        assert_eq!((last[3], &last[HEADER..HEADER + 4]), (GOAWAY, &[0; 4][..]));
        drop(client);
        server.await.unwrap().unwrap();
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            lengths in proptest::collection::vec(prop_oneof![0..20usize, 0..70_000usize], 0..12),
            cuts in proptest::collection::vec(prop_oneof![1..20usize, 1..100_000usize], 1..12),
        ) {
            let frames: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, length)| {
                let mut frame = (*length as u32).to_be_bytes()[1..].to_vec();
                frame.extend([n as u8, 0, 0, 0, 0, 0]);
                frame.extend((0..*length).map(|at| at as u8));
                frame
            }).collect();
            let bytes = frames.concat();
            let (mut left, mut seen, mut found) = (&bytes[..], Vec::new(), Frames::new());
            for cut in cuts.iter().cycle() {
                let (now, later) = left.split_at((*cut).min(left.len()));
                found.pass(now, |start| seen.push(start.to_vec()));
                left = later;
                if left.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found.at, 0);
            let starts: Vec<Vec<u8>> = frames.iter().map(|frame| frame[..frame.len().min(PING_FRAME)].to_vec()).collect();
            prop_assert_eq!(seen, starts);
        }
    }
}
