//! The one way into a hash for what a request carries, so that a test can count how often that is.

use hmac::digest::{FixedOutput, Output, Update};

/// What a pass over bytes is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pass {
    /// To hold signatures against: a MAC, or the hash that a public key's signature is of.
    Proof,
    /// The digest of the body, for keys.
    Body,
    /// The digest of the signed content, for keys.
    Content,
}

/// The hash of the segments run together, from this state on.
pub(super) fn over<'a, H: FixedOutput + Update>(
    pass: Pass,
    mut hash: H,
    segments: impl IntoIterator<Item = &'a [u8]>,
) -> Output<H> {
    let mut bytes = 0;
    for segment in segments {
        hash.update(segment);
        bytes += segment.len();
    }
    note(pass, bytes);
    hash.finalize_fixed()
}

#[cfg(not(test))]
pub(super) const fn note(_: Pass, _: usize) {}

#[cfg(test)]
pub(crate) use counting::{counted, note};

#[cfg(test)]
mod counting {
    use std::cell::RefCell;

    use super::Pass;

    thread_local! {
        static PASSES: RefCell<Vec<(Pass, usize)>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn note(pass: Pass, bytes: usize) {
        PASSES.with_borrow_mut(|passes| passes.push((pass, bytes)));
    }

    /// What the work gives, and every pass that it made on this thread, with its bytes.
    pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, Vec<(Pass, usize)>) {
        PASSES.take();
        let done = work();
        (done, PASSES.take())
    }
}
