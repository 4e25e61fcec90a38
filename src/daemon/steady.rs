//! Whether what may come and go is well, as it is told: that it is not, at once; that it is again, when that has lasted. One that
//! comes and goes every second would otherwise be two alerts a second, and whoever receives them would look for the others among
//! these.

use parking_lot::Mutex;

/// How long it has to be well before that is told, milliseconds.
const LASTS: u64 = 60_000;

/// As it was told last; well, to begin with.
#[derive(Debug, Default)]
pub struct Steady(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_ill: bool,
    /// Since when it has been well, monotonic milliseconds.
    well: Option<u64>,
}

impl Steady {
    /// Takes how it is at `mono` (monotonic milliseconds). Whether it is well, where that is to be told. To be called at every
    /// change, and now and then while it is well.
    pub fn look(&self, is_well: bool, mono: u64) -> Option<bool> {
        let mut state = self.0.lock();
        if !is_well {
            state.well = None;
            return (!std::mem::replace(&mut state.is_ill, true)).then_some(false);
        }
        let since = *state.well.get_or_insert(mono);
        let lasts = state.is_ill && mono.saturating_sub(since) >= LASTS;
        lasts.then(|| {
            state.is_ill = false;
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_when_it_has_lasted() {
        let steady = Steady::default();
        let told = |second: u64, is_well| steady.look(is_well, second * 1000);
        assert_eq!(told(1, true), None, "as it is taken to be");
        assert_eq!(told(2, false), Some(false), "at once");
        assert_eq!((told(3, false), told(4, true)), (None, None));
        // It comes and goes.
        assert!((5..600).all(|second| told(second, second % 2 == 0).is_none()));
        assert_eq!((told(600, true), told(659, true)), (None, None));
        assert_eq!((told(660, true), told(661, true)), (Some(true), None));
        assert_eq!(told(662, false), Some(false), "and at once again");
    }
}
