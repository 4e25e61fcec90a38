//! Numbered hosts: a second code for a name that differs from one already sent in its numbers alone.
//!
//! Between [`super::Model`], which prices a name by itself, and the session's history, which knows the forms it has
//! sent. `svc1`, `svc2`, ... `svc40` tell the outside a number each, not a word each. A form is the payload part with
//! every run of digits made one; a name of a known form is coded as which form, and for each run its length (Elias
//! gamma, 2 floor(log2 n) + 1 bits) and its digits (log2 10 each). Every new name behind the first of its account says
//! by which of four codes it is priced: [`PLAIN`], [`SAME_FORM`], [`NUMBERED`] or by known labels, eleven to two to two
//! to one.

use crate::bits::Bits;
use crate::name::{MAX_NAME, NameRef};

/// Price of saying "by the model": log2 of 16/11, rounded up. One sixteenth is left for names in known labels.
pub(crate) const PLAIN: Bits = Bits::from_steps(139);
/// Price of saying "the form of the last numbered name": log2 of 8.
pub(crate) const SAME_FORM: Bits = Bits::whole(3);
/// Price of saying "another known form": log2 of 8.
pub(crate) const NUMBERED: Bits = Bits::whole(3);
/// A longer payload part is no numbered host's; it is not looked at.
const MOST_OCTETS: usize = 80;
/// log2 of 10 in 1/256 bit, rounded up.
const DIGIT: u32 = 851;

/// A name with its numbers taken out.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    octets: [u8; MAX_NAME],
    len: usize,
    /// Price of the numbers.
    pub numbers: Bits,
    /// Digits, and an end for each run.
    pub symbols: u32,
}

impl Form {
    /// The form of `name` left of `payload` octets; `None` where the payload part has no digit, or is
    /// long.
    pub fn of(name: NameRef<'_>, payload: usize) -> Option<Self> {
        let wire = name.as_wire();
        if payload > MOST_OCTETS || !wire.get(..payload)?.iter().any(u8::is_ascii_digit) {
            return None;
        }
        let mut form = Self { octets: [0; MAX_NAME], len: 0, numbers: Bits::ZERO, symbols: 0 };
        let mut at = 0;
        while at < payload {
            let label = wire.get(at + 1..at + 1 + usize::from(*wire.get(at)?))?;
            at += 1 + label.len();
            let mut run = 0;
            for octet in label {
                if octet.is_ascii_digit() {
                    run += 1;
                    continue;
                }
                form.close(&mut run);
                form.push(*octet);
            }
            form.close(&mut run);
            // An upper-case letter stands in no canonical name, so no label can imitate its end.
            form.push(b'E');
        }
        // The owner's part keeps forms of different tenants apart.
        for octet in wire.get(payload..)? {
            form.push(*octet);
        }
        Some(form)
    }

    /// The octets that stand for the form; no name has them, since an upper-case letter is among them.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    fn close(&mut self, run: &mut u32) {
        if *run > 0 {
            self.push(b'N');
            self.numbers = self.numbers.plus(Bits::from_steps(DIGIT * *run)).plus(Bits::whole(2 * run.ilog2() + 1));
            self.symbols += *run + 1;
            *run = 0;
        }
    }

    fn push(&mut self, octet: u8) {
        // A form is never longer than its name: each run of digits becomes one octet, each label length one mark.
        if let Some(slot) = self.octets.get_mut(self.len) {
            *slot = octet;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NameBuf;

    fn form(text: &str) -> Option<Form> {
        let name = NameBuf::from_text(text).expect("name");
        Form::of(name.as_ref(), name.as_ref().wire_len() - "\x07example\x03org\x00".len())
    }

    #[test]
    fn names_that_differ_in_numbers_have_one_form() {
        let same = |a: &str, b: &str| form(a).expect("digits").octets() == form(b).expect("digits").octets();
        assert!(same("svc1.example.org", "svc40.example.org"));
        assert!(same("a1.b22.example.org", "a333.b4.example.org"));
        assert!(!same("a1.b2.example.org", "a1b.2.example.org"));
        assert!(!same("svc1.example.org", "srv1.example.org"));
        assert!(form("svc.example.org").is_none());
    }

    #[test]
    fn numbers_cost_their_digits_and_their_length() {
        assert_eq!(form("svc7.example.org").expect("digits").numbers, Bits::from_steps(851 + 256));
        assert_eq!(form("svc77.example.org").expect("digits").numbers, Bits::from_steps(2 * 851 + 3 * 256));
        let sum: f64 = (1..=60u32)
            .map(|n| {
                let steps = f64::from(DIGIT * n) + f64::from((2 * n.ilog2() + 1) * Bits::STEPS);
                10f64.powi(n as i32) * (-steps / f64::from(Bits::STEPS)).exp2()
            })
            .sum();
        assert!(sum <= 1.0, "all numbers together weigh {sum}");
        let say: f64 = [PLAIN, SAME_FORM, NUMBERED, Bits::whole(4)].map(|bits| (-bits.as_f64()).exp2()).iter().sum();
        assert!(say <= 1.0, "{say}");
    }
}
