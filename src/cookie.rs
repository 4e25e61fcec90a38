//! DNS cookies, the server's side: who shows one of ours has heard us at the address it speaks from (RFC 7873, RFC 9018).
//!
//! Pure, given the second. [`crate::wire`] reads the option, [`crate::pipeline`] asks here what to put into the reply and
//! whether the source is proven; nothing is stored for a client. Secrets are made from one of the process, a new one every
//! [`PERIOD`] seconds, so that there is no state to rotate: the time in a cookie says which secret it was made with. After
//! a restart every cookie is a stranger's, and its client gets another with the next reply.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as SipHasher128};

/// Octets of a cookie in full: the client's eight and our sixteen (RFC 9018 section 4).
pub const COOKIE: usize = CLIENT + 16;
/// Octets of the client's part.
const CLIENT: usize = 8;
/// The one version there is, and three reserved octets.
const VERSION: [u8; 4] = [1, 0, 0, 0];
/// How long a secret is used, seconds. RFC 9018 section 5 leaves it to us; longer than any cookie is good.
const PERIOD: u32 = 86_400;
/// A cookie older than this is no proof (RFC 9018 section 4.3), seconds.
const GOOD: u32 = 3600;
/// One older than this is replaced (RFC 9018 section 4.3), seconds.
const FRESH: u32 = 1800;
/// How far ahead of us another server's clock may be (RFC 9018 section 4.3), seconds.
const AHEAD: u32 = 300;

/// What a cookie is worth, and what the reply carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Whether it shows that the client hears what is sent to its address.
    pub proven: bool,
    /// The option's data for the reply: the same again where it is good for a while yet.
    pub reply: [u8; COOKIE],
}

/// Makes and recognises cookies.
#[derive(Clone)]
pub struct Cookies {
    secret: [u8; 16],
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies")
    }
}

impl Cookies {
    /// From a secret that nobody outside can know.
    pub fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// Judges what a client at `from` sent (8 octets, or 16 to 40, as [`crate::wire`] lets through) at `second` (Unix time,
    /// wrapping in 32 bits). `None` for other lengths.
    pub fn judge(&self, sent: &[u8], from: IpAddr, second: u32) -> Option<Judged> {
        let (client, server) = sent.split_first_chunk::<CLIENT>()?;
        let found = self.age(client, server, from, second);
        let reply = match (found, <[u8; COOKIE]>::try_from(sent)) {
            (Some(age), Ok(same)) if age <= FRESH => same,
            _ => self.make(client, from, second, &self.secret_at(second)),
        };
        Some(Judged { proven: found.is_some(), reply })
    }

    /// Seconds since a good server cookie was made; `None` for one that is not ours or too old.
    fn age(&self, client: &[u8; CLIENT], server: &[u8], from: IpAddr, second: u32) -> Option<u32> {
        let server = <&[u8; COOKIE - CLIENT]>::try_from(server).ok()?;
        let [1, _, _, _, stamp @ .., _, _, _, _, _, _, _, _] = *server else { return None };
        let made = u32::from_be_bytes(stamp);
        // Serial arithmetic (RFC 1982), as the field wraps in 2106.
        let age = second.wrapping_sub(made);
        if age > GOOD && made.wrapping_sub(second) > AHEAD {
            return None;
        }
        let right = self.make(client, from, made, &self.secret_at(made));
        // All octets are looked at, so that the time tells nothing of where they differ. The reserved ones must be zero, as
        // we send them.
        let differ = right[CLIENT..].iter().zip(server).fold(0, |differ, (a, b)| differ | (a ^ b));
        (differ == 0).then_some(if age > GOOD { 0 } else { age })
    }

    /// The whole cookie for a client at this time.
    fn make(&self, client: &[u8; CLIENT], from: IpAddr, second: u32, secret: &[u8; 16]) -> [u8; COOKIE] {
        let mut cookie = [0; COOKIE];
        let (open, hash) = cookie.split_at_mut(CLIENT + 8);
        open[..CLIENT].copy_from_slice(client);
        open[CLIENT..CLIENT + 4].copy_from_slice(&VERSION);
        open[CLIENT + 4..].copy_from_slice(&second.to_be_bytes());
        let mut hasher = SipHasher24::new_with_key(secret);
        hasher.write(open);
        match from {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hash.copy_from_slice(&hasher.finish().to_le_bytes());
        cookie
    }

    /// The secret of the period in which `second` lies.
    fn secret_at(&self, second: u32) -> [u8; 16] {
        let mut hasher = SipHasher128::new_with_key(&self.secret);
        hasher.write(&(second / PERIOD).to_be_bytes());
        hasher.finish128().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    /// RFC 9018, appendix A.
    #[test]
    fn cookies_are_those_of_the_rfc() {
        for (secret, client, from, second, whole) in [
            (
                "e5e973e5a6b2a43f48e7dc849e37bfcf",
                "2464c4abcf10c957",
                "198.51.100.100",
                1_559_731_985,
                "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            ),
            (
                "dd3bdf9344b678b185a6f5cb60fca715",
                "22681ab97d52c298",
                "2001:db8:220:1:59de:d0f4:8769:82b8",
                1_559_741_817,
                "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
            ),
        ] {
            let secret = hex(secret).try_into().expect("sixteen octets");
            let client = hex(client).try_into().expect("eight octets");
            let made = Cookies::new([0; 16]).make(&client, from.parse().expect("address"), second, &secret);
            assert_eq!(made.to_vec(), hex(whole), "{from}");
        }
    }

    #[test]
    fn a_cookie_proves_its_address_for_an_hour() {
        let cookies = Cookies::new([7; 16]);
        let (here, there): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        // Across a change of secrets, and across the end of 32 bits.
        for now in [1_700_000_000 / PERIOD * PERIOD, 1_000_000, 100, u32::MAX - 50] {
            let first = cookies.judge(b"clientck", here, now).expect("a client's cookie");
            assert!(!first.proven);
            for (after, proven, same) in [
                (0, true, true),
                (1799, true, true),
                (1801, true, false),
                (3600, true, false),
                (3601, false, false),
                (-300_i32 as u32, true, true),
                (-301_i32 as u32, false, false),
            ] {
                let then = now.wrapping_add(after);
                let again = cookies.judge(&first.reply, here, then).expect("a whole cookie");
                assert_eq!((again.proven, again.reply == first.reply), (proven, same), "{now} {}", after as i32);
                assert!(!cookies.judge(&first.reply, there, then).expect("whole").proven, "another address");
            }
        }
        let first = cookies.judge(b"clientck", here, 5_000_000).expect("a client's cookie").reply;
        for at in 0..COOKIE {
            let mut bent = first;
            bent[at] ^= 1;
            assert!(!cookies.judge(&bent, here, 5_000_000).expect("whole").proven, "octet {at}");
        }
        assert!(!Cookies::new([8; 16]).judge(&first, here, 5_000_000).expect("whole").proven, "another process");
    }

    proptest! {
        #[test]
        fn any_octets_are_judged(sent in proptest::collection::vec(any::<u8>(), 0..48), second in any::<u32>()) {
            let judged = Cookies::new([1; 16]).judge(&sent, [192, 0, 2, 1].into(), second);
            prop_assert_eq!(judged.is_some(), sent.len() >= CLIENT);
            prop_assert!(judged.is_none_or(|judged| !judged.proven && judged.reply[..CLIENT] == sent[..CLIENT]));
        }
    }
}
