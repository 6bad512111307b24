//! Whether the end of a write-ahead log can be read.
//!
//! SQLite takes from a log what its running checksum proves, up to the last commit, and passes over the rest in
//! silence: a damaged frame and one that was being written when the power went look the same. So it is told, not
//! judged.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The last bit tells the order of bytes that the checksum is computed in.
const MAGIC: u32 = 0x377f_0682;

/// Frames that were written since the log began anew and that no commit that can be read covers. A log whose header
/// cannot be read counts whole.
pub(super) fn unreadable_frames(log: &Path) -> io::Result<u64> {
    let file = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let bytes = file.metadata()?.len();
    let mut input = BufReader::with_capacity(1 << 16, file);
    let mut header = [0; HEADER];
    if !fill(&mut input, &mut header)? {
        return Ok(0);
    }
    let mut sum = Sum { little: big_endian(&header, 0) == MAGIC, state: (0, 0) };
    sum.add(&header[..24]);
    let page_bytes = big_endian(&header, 8) as usize;
    let is_whole =
        big_endian(&header, 0) & !1 == MAGIC && sum.state == (big_endian(&header, 24), big_endian(&header, 28));
    if !is_whole || !(512..=65_536).contains(&page_bytes) {
        return Ok(bytes.div_ceil(super::super::open::PAGE_BYTES));
    }
    let salts = [big_endian(&header, 16), big_endian(&header, 20)];
    let (mut frame, mut whole, mut unread) = (vec![0; FRAME_HEADER + page_bytes], true, 0);
    while fill(&mut input, &mut frame)? {
        // What stands behind the frames of this round is of an earlier one. One damaged salt does not hide a frame.
        if big_endian(&frame, 8) != salts[0] && big_endian(&frame, 12) != salts[1] {
            break;
        }
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEADER..]);
        let proven = sum.state == (big_endian(&frame, 16), big_endian(&frame, 20));
        whole &= proven && [big_endian(&frame, 8), big_endian(&frame, 12)] == salts;
        let commits = big_endian(&frame, 4) != 0;
        unread = if whole && commits { 0 } else { unread + 1 };
    }
    Ok(unread)
}

/// Whether there was enough.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

fn big_endian(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The checksum of SQLite's log: it runs from the header through all frames.
struct Sum {
    little: bool,
    state: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| {
            let word = big_endian(bytes, 0);
            if self.little { word.swap_bytes() } else { word }
        };
        let (mut first, mut second) = self.state;
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
        }
        self.state = (first, second);
    }
}
