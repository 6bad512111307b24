//! As much of a configuration as the code under test looks at.

use http::{HeaderName, HeaderValue};

use crate::secret::Secret;

/// An upstream, as its headers see it.
pub struct Upstream {
    /// What it is signed to with.
    pub signing_secret: Option<Secret>,
    /// What is added for it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
