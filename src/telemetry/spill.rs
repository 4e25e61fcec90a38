//! Event lines that the disk does not take: kept in memory as far as there is room, and written in their order once it does.
//!
//! Pure. Where there is no room, events of answers go first, the oldest before the newer; alerts never come here, they are
//! journalled.

use std::collections::VecDeque;
use std::sync::Arc;

/// Most memory for them, octets of text: at some 600 octets a line, a hundred thousand events.
pub const CAPACITY: usize = 64 << 20;

/// Lines that wait. See the module.
#[derive(Debug)]
pub struct Spill {
    capacity: usize,
    octets: usize,
    next: u64,
    /// Each with its number in the order they came. What was answered, which is most of all and matters least.
    answers: VecDeque<(u64, Arc<str>)>,
    /// All else.
    others: VecDeque<(u64, Arc<str>)>,
    shed: u64,
}

impl Spill {
    /// None wait. `capacity` is in octets.
    pub fn new(capacity: usize) -> Self {
        let (answers, others) = (VecDeque::new(), VecDeque::new());
        Self { capacity, octets: 0, next: 0, answers, others, shed: 0 }
    }

    /// Adds a line; `answer` says that it tells of a question that was answered. Gives up as many of the oldest as there is no
    /// room for, answers first; a line for which no room is left even so is given up itself.
    pub fn push(&mut self, line: Arc<str>, answer: bool) {
        while self.octets + line.len() > self.capacity && line.len() <= self.capacity {
            let oldest = self.answers.pop_front().or_else(|| if answer { None } else { self.others.pop_front() });
            let Some((_, given_up)) = oldest else {
                self.shed += 1;
                return;
            };
            self.shed += 1;
            self.octets -= given_up.len();
        }
        if line.len() > self.capacity {
            self.shed += 1;
            return;
        }
        self.octets += line.len();
        let queue = if answer { &mut self.answers } else { &mut self.others };
        queue.push_back((self.next, line));
        self.next += 1;
    }

    /// All lines in their order.
    pub fn lines(&self) -> impl Iterator<Item = &Arc<str>> {
        let (mut answers, mut others) = (self.answers.iter().peekable(), self.others.iter().peekable());
        std::iter::from_fn(move || match (answers.peek(), others.peek()) {
            (Some((answer, _)), Some((other, _))) if answer > other => others.next(),
            (None, _) => others.next(),
            _ => answers.next(),
        })
        .map(|(_, line)| line)
    }

    /// The oldest line.
    pub fn first(&self) -> Option<&Arc<str>> {
        self.oldest().map(|(_, line)| line)
    }

    /// Takes the oldest line out.
    pub fn pop(&mut self) {
        let number = self.oldest().map(|(number, _)| *number);
        for queue in [&mut self.answers, &mut self.others] {
            if queue.front().map(|(at, _)| *at) == number
                && let Some((_, line)) = queue.pop_front()
            {
                self.octets -= line.len();
            }
        }
    }

    fn oldest(&self) -> Option<&(u64, Arc<str>)> {
        [self.answers.front(), self.others.front()].into_iter().flatten().min_by_key(|(number, _)| *number)
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.others.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.answers.len() + self.others.len()
    }

    /// How many were given up, since the start.
    pub fn shed(&self) -> u64 {
        self.shed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(spill: &mut Spill) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = spill.first() {
            all.push(line.to_string());
            spill.pop();
        }
        assert!(spill.is_empty() && spill.octets == 0);
        all
    }

    #[test]
    fn lines_leave_in_the_order_they_came() {
        let mut spill = Spill::new(100);
        for (line, answer) in [("a1", true), ("r2", false), ("a3", true), ("r4", false)] {
            spill.push(line.into(), answer);
        }
        assert_eq!((spill.len(), spill.shed()), (4, 0));
        assert_eq!(drain(&mut spill), ["a1", "r2", "a3", "r4"]);
    }

    #[test]
    fn answers_are_given_up_first_and_nothing_grows_past_its_room() {
        let mut spill = Spill::new(8);
        for (line, answer) in [("a1", true), ("r2", false), ("a3", true), ("r4", false)] {
            spill.push(line.into(), answer);
        }
        spill.push("r5".into(), false);
        spill.push("r6".into(), false);
        assert_eq!(spill.shed(), 2, "the two answers");
        spill.push("a7".into(), true);
        assert_eq!(spill.shed(), 3, "no refusal gives way to an answer");
        spill.push("r8".into(), false);
        assert_eq!(spill.shed(), 4, "the oldest refusal");
        spill.push("longer than all room".into(), false);
        assert_eq!(spill.shed(), 5, "what fits nowhere goes alone");
        assert_eq!(drain(&mut spill), ["r4", "r5", "r6", "r8"]);
    }
}
