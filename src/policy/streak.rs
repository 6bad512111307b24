//! How often in a row a source was answered with no success: what a provider counts that disables a subscription.

/// One source's count, and the number at which its provider gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Streak {
    refused: u32,
    said: bool,
}

impl Streak {
    /// Answers in a row that were no 2xx.
    pub const fn refused(self) -> u32 {
        self.refused
    }

    /// One more answer. Returns whether it is time to say so: once in a row, when half of `disables_after` is reached.
    pub const fn answered(&mut self, success: bool, disables_after: Option<u32>) -> bool {
        if success {
            *self = Self { refused: 0, said: false };
            return false;
        }
        self.refused = self.refused.saturating_add(1);
        let Some(max) = disables_after else { return false };
        let is_half = self.refused >= max.div_ceil(2);
        let is_news = is_half && !self.said;
        self.said |= is_half;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_threshold_is_said_once_in_a_row() {
        let mut streak = Streak::default();
        let said: Vec<_> = (0..10).map(|_| streak.answered(false, Some(5))).collect();
        assert_eq!(said.iter().position(|said| *said), Some(2), "the third of five");
        assert_eq!((said.iter().filter(|said| **said).count(), streak.refused()), (1, 10));
        assert!(!streak.answered(true, Some(5)));
        assert_eq!(streak.refused(), 0);
        assert_eq!([1, 2, 3].map(|_| streak.answered(false, Some(5))), [false, false, true], "a new row");
    }

    #[test]
    fn without_a_threshold_it_only_counts() {
        let mut streak = Streak::default();
        assert!((0..1000).all(|_| !streak.answered(false, None)));
        assert_eq!(streak.refused(), 1000);
    }
}
