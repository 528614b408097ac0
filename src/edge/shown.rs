//! Decide, with somebody who looks on: each evaluation goes to the view, also one that changes nothing and is written nowhere.
//!
//! What is looked at changes nothing: the stage below sees the same input and its appends are the same. After a restart decide folds
//! the last signals again, and the view sees those evaluations again, at their times of then.

use std::sync::Arc;

use crate::edge::view::View;
use crate::log::Topic;
use crate::model::{Message, Signal};
use crate::stages::decide::{Decide, State};
use crate::stages::{Effects, Input, OnGap, Stage};

/// [`Decide`], whose evaluations a [`View`] sees.
pub struct Shown {
    decide: Decide,
    view: Arc<View>,
}

impl Shown {
    /// Shows the evaluations of `decide` to `view`.
    pub fn new(decide: Decide, view: Arc<View>) -> Self {
        Shown { decide, view }
    }
}

impl Stage for Shown {
    type Record = Signal;
    type State = State;
    const NAME: &'static str = Decide::NAME;
    const INPUT: Topic = Decide::INPUT;
    const VERSION: u32 = Decide::VERSION;
    const TICK: Option<fn() -> Message> = Decide::TICK;
    const ON_GAP: Option<OnGap> = Decide::ON_GAP;
    const FLUSHES: bool = Decide::FLUSHES;

    fn apply(&self, state: &mut State, input: Input<Signal>, effects: &mut Effects) {
        self.decide.apply(state, input, effects);
        effects.take_evaluated().iter().for_each(|decision| self.view.evaluated(decision));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the runtime asks of a stage beyond its fold is what decide says, too.
    #[test]
    fn it_is_decide_in_every_word() {
        assert_eq!((Shown::NAME, Shown::INPUT, Shown::VERSION, Shown::FLUSHES), (Decide::NAME, Decide::INPUT, Decide::VERSION, Decide::FLUSHES));
        assert_eq!(Shown::TICK.map(|tick| tick()), Decide::TICK.map(|tick| tick()));
        assert_eq!(Shown::ON_GAP.map(|ask| ask("x".to_owned())), Decide::ON_GAP.map(|ask| ask("x".to_owned())));
    }
}
