//! The frames of HTTP/2 that go by on a connection: their heads only. What they mean is h2's business; here it is seen
//! which answers have begun and not ended, and whether a head is unfinished, because h2 has no deadline for either.

/// What a client begins with.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    pub(super) stream: u32,
}

impl Frame {
    /// Whether its sender sends no more on this stream.
    pub(super) fn ends_stream(self) -> bool {
        self.resets_stream() || (matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0)
    }
    /// Whether the stream ends for both sides.
    pub(super) fn resets_stream(self) -> bool {
        self.kind == RST_STREAM
    }
    /// Whether it begins a message, or is the trailers of one.
    pub(super) fn is_head(self) -> bool {
        self.kind == HEADERS
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes before the next frame: of the preface, or of the frame that began last.
    left: usize,
    preface: bool,
    head: [u8; 9],
    have: usize,
    /// A head began and its last frame has not.
    in_head: bool,
}

impl Frames {
    /// What the client sends.
    pub(super) fn from_client() -> Self {
        Self { left: PREFACE.len(), preface: true, ..Self::from_us() }
    }

    /// What the client gets.
    pub(super) fn from_us() -> Self {
        Self { left: 0, preface: false, head: [0; 9], have: 0, in_head: false }
    }

    /// Whether the client's side is in the middle of its preface, or of the head of a message.
    pub(super) fn is_within_head(&self) -> bool {
        let of_head = self.left > 0 && matches!(self.head[3], HEADERS | CONTINUATION);
        self.preface || self.in_head || of_head
    }

    /// These bytes went by; `began` is told of each frame whose head is among them.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut began: impl FnMut(Frame)) {
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            if self.left > 0 {
                return;
            }
            self.preface = false;
            let taken = (9 - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < 9 {
                return;
            }
            self.have = 0;
            let [high, middle, low, kind, flags, stream @ ..] = self.head;
            self.left = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX);
            if matches!(kind, HEADERS | CONTINUATION) {
                self.in_head = flags & END_HEADERS == 0;
            }
            began(Frame { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), &vec![HEADERS; payload]].concat()
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_frames_are_the_same(
            sent in prop::collection::vec((0..12u8, any::<u8>(), 0..1u32 << 31, 0..300usize), 0..20), cut in 1..400usize,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, *payload)).collect();
            let bytes = [&PREFACE[..], &bytes].concat();
            let (mut frames, mut seen) = (Frames::from_client(), Vec::new());
            for piece in bytes.chunks(cut) {
                frames.pass(piece, |frame| seen.push(frame));
            }
            let expected: Vec<_> = sent.iter().map(|(kind, flags, stream, _)| Frame { kind: *kind, flags: *flags, stream: *stream }).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_head_lasts_from_its_first_byte_to_the_end_of_its_last_frame() {
        let mut frames = Frames::from_client();
        let mut within = |bytes: &[u8]| {
            frames.pass(bytes, |_| {});
            frames.is_within_head()
        };
        assert!(within(&PREFACE[..23]));
        assert!(!within(&PREFACE[23..]));
        let head = frame(HEADERS, END_HEADERS, 1, 10);
        assert!(within(&head[..12]));
        assert!(!within(&head[12..]));
        assert!(within(&frame(HEADERS, 0, 3, 10)));
        assert!(within(&frame(CONTINUATION, 0, 3, 10)));
        assert!(!within(&frame(CONTINUATION, END_HEADERS, 3, 10)));
        assert!(!within(&frame(DATA, 0, 3, 10)[..12]), "a body has other deadlines");
    }

    #[test]
    fn what_ends_a_stream_is_seen() {
        let of = |kind, flags| Frame { kind, flags, stream: 1 };
        assert!(of(HEADERS, END_STREAM).ends_stream() && of(DATA, END_STREAM).ends_stream());
        assert!(of(RST_STREAM, 0).ends_stream() && of(RST_STREAM, 0).resets_stream());
        // The flag means something else in other frames: this is the answer to a PING.
        assert!(!of(0x6, 0x1).ends_stream() && !of(DATA, END_HEADERS).ends_stream());
    }
}
