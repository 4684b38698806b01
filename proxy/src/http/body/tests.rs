use std::collections::VecDeque;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|b| Ok(Frame::data(b))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn source(frames: &[Vec<u8>], limit: usize) -> Source<Frames> {
    let frames = frames.iter().map(|f| Bytes::copy_from_slice(f)).collect();
    Source::new(Frames(frames), limit, Duration::from_secs(1))
}

/// Reads at most `frames` frames; the bytes, or `None` after an error.
fn read(source: &mut Source<Frames>, reader: u32, frames: usize) -> Option<Vec<u8>> {
    source.reader = source.reader.max(reader);
    let (mut position, mut all) = (0, Vec::new());
    for _ in 0..frames {
        match source.poll(reader, &mut position, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => all.extend_from_slice(frame.data_ref().unwrap()),
            Poll::Ready(None) => return Some(all),
            Poll::Ready(Some(Err(_))) => return None,
            Poll::Pending => unreachable!("the frames are all there"),
        }
    }
    Some(all)
}

#[test]
fn an_attempt_that_was_given_up_reads_no_further() {
    let mut source = source(&[vec![1], vec![2]], 100);
    assert_eq!(read(&mut source, 1, 1), Some(vec![1]));
    assert_eq!(read(&mut source, 2, 9), Some(vec![1, 2]));
    assert_eq!(read(&mut source, 1, 1), None);
}

proptest! {
    #[test]
    fn a_second_attempt_gets_the_whole_body_or_it_is_known_that_it_can_not(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..8),
        limit in 0_usize..100, read_first in 0_usize..10,
    ) {
        let whole: Vec<u8> = frames.concat();
        let mut source = source(&frames, limit);
        read(&mut source, 1, read_first);
        if !source.outgrown {
            prop_assert_eq!(read(&mut source, 2, usize::MAX), Some(whole.clone()));
        }
        prop_assert!(source.bytes <= limit || source.kept.is_empty());
        prop_assert!(whole.len() > limit || !source.outgrown);
    }
}
