//! Character model of benign host names: a code length for any payload part.

use crate::bits::Bits;

/// The model shipped with the product; exactly normalised, so that a code length is a bound (Kraft).
pub struct Model;

impl Model {
    /// The shipped table.
    pub fn shipped() -> &'static Model {
        todo!()
    }

    /// Information of a payload part (wire labels, no root label), rounded up to 1/256 bit.
    pub fn cost(&self, payload: &[u8]) -> Bits {
        let _ = payload;
        todo!()
    }
}
