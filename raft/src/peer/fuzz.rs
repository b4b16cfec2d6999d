//! See [`crate::fuzz`].

use bytes::{Bytes, BytesMut};
use kontiki_storage::{codec, fuzz::settles};
use openraft::raft::VoteRequest;

use super::message::{
    AppendAnswer, AppendCall, Hello, ProposeAnswer, StreamAnswer, TransferAnswer, TransferCall, VoteAnswer, VoteCall,
    Welcome, frame, take_frame,
};
use crate::types::TypeConfig;

/// One message of every kind, and a stream of them.
pub fn message(body: &[u8]) {
    settles::<Hello>(body);
    settles::<Welcome>(body);
    settles::<VoteAnswer>(body);
    settles::<AppendAnswer>(body);
    settles::<StreamAnswer>(body);
    settles::<TransferCall>(body);
    settles::<TransferAnswer>(body);
    settles::<ProposeAnswer>(body);
    if let Some(call) = settles::<VoteCall>(body) {
        let _ = VoteRequest::<TypeConfig>::from(call);
    }
    if let Ok(call) = AppendCall::decode(&[&[codec::FORMAT], body].concat().into()) {
        let written = codec::encode(&AppendCall::of(&call));
        let again =
            written.clone().and_then(|bytes| codec::encode(&AppendCall::of(&AppendCall::decode(&bytes.into())?)));
        assert!(again.is_ok() && written == again, "{written:?} was read as {again:?}");
    }
    let mut stream = BytesMut::from(body);
    let mut frames: Vec<Bytes> = Vec::new();
    while let Ok(Some(message)) = take_frame(&mut stream) {
        frames.push(message);
    }
    let mut again: BytesMut = frames.iter().flat_map(|message| frame(message)).collect();
    again.extend_from_slice(&stream);
    assert_eq!(again, body);
}
