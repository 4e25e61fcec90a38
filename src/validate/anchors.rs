//! Where trust begins and where it is suspended: anchors, negative anchors (RFC 7646), zones that are asked elsewhere.

use staunch_scoring::{NameBuf, NameRef};

use super::keys::Ds;

/// The root's keys of 2017 and 2024, as IANA publishes them (RFC 7958): tag, algorithm, kind of digest, digest.
const ROOT: [&str; 2] = [
    ". DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
    ". DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
];
/// Most anchors of a file.
const MAX_ANCHORS: usize = 256;

/// Why a file of anchors cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// A line is not of this form.
    #[error(
        "line {0}: not `name [TTL] [IN] DS tag algorithm type digest` or `name [TTL] [IN] DNSKEY flags 3 algorithm key`"
    )]
    Form(usize),
    /// Its algorithm or digest is not known here, or the key must not sign a zone.
    #[error("line {0}: a key, algorithm or digest by which nothing can be checked here")]
    Useless(usize),
    /// There is no anchor.
    #[error("no anchor")]
    Empty,
    /// There are too many.
    #[error("more than {MAX_ANCHORS} anchors")]
    TooMany,
}

/// What stands for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust<'a> {
    /// This zone's keys are vouched for by these records.
    Anchor(NameRef<'a>, &'a [Ds]),
    /// Nobody vouches for it, or the configuration says that nobody shall.
    Suspended,
}

/// Anchors by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchors {
    positive: Vec<(NameBuf, Vec<Ds>)>,
    negative: Vec<NameBuf>,
    apart: Vec<NameBuf>,
}

impl Default for Anchors {
    /// The root's.
    fn default() -> Self {
        let mut anchors = Self { positive: Vec::new(), negative: Vec::new(), apart: Vec::new() };
        for line in ROOT {
            anchors.positive_line(1, line).ok();
        }
        anchors
    }
}

impl Anchors {
    /// Reads a file in the form of a zone: DS and DNSKEY records, one a line, names absolute, `;` before a remark. Where it
    /// has anchors of the root, those that are built in do not count.
    ///
    /// # Errors
    /// The first line that cannot be used.
    pub fn read(text: &str) -> Result<Self, AnchorError> {
        let mut anchors = Self { positive: Vec::new(), negative: Vec::new(), apart: Vec::new() };
        let mut count = 0;
        for (i, line) in text.lines().enumerate() {
            let line = line.split_once(';').map_or(line, |(record, _)| record).trim();
            if !line.is_empty() {
                anchors.positive_line(i + 1, line)?;
                count += 1;
            }
        }
        match count {
            0 => return Err(AnchorError::Empty),
            1..=MAX_ANCHORS => {}
            _ => return Err(AnchorError::TooMany),
        }
        if !anchors.positive.iter().any(|(zone, _)| zone.as_ref().is_root()) {
            anchors.positive.extend(Self::default().positive);
        }
        Ok(anchors)
    }

    /// With zones, and all below each, that are not validated though an anchor stands above (RFC 7646).
    pub fn without(mut self, negative: impl IntoIterator<Item = NameBuf>) -> Self {
        self.negative.extend(negative);
        self
    }

    /// With zones that are asked of upstreams of their own: an anchor above is no word on them, since who is asked for their
    /// parents is not who is asked for them, and their names are not for the parents' ears.
    pub fn apart(mut self, apart: impl IntoIterator<Item = NameBuf>) -> Self {
        self.apart.extend(apart);
        self
    }

    fn positive_line(&mut self, number: usize, line: &str) -> Result<(), AnchorError> {
        let form = || AnchorError::Form(number);
        let mut words = line.split_ascii_whitespace();
        let zone = NameBuf::from_text(words.next().ok_or_else(form)?).map_err(|_| form())?;
        let kind = words.find(|word| !word.eq_ignore_ascii_case("IN") && word.parse::<u32>().is_err());
        let kind = kind.ok_or_else(form)?;
        let numbers: Vec<u16> = words.by_ref().take(3).map(str::parse).collect::<Result<_, _>>().map_err(|_| form())?;
        let [first, second, third] = *numbers else { return Err(form()) };
        let octet = |number: u16| u8::try_from(number).map_err(|_| form());
        let data: String = words.collect();
        let ds = if kind.eq_ignore_ascii_case("DS") {
            let [high, low] = first.to_be_bytes();
            let digest = octets_of_hex(&data).ok_or_else(form)?;
            let data = [&[high, low, octet(second)?, octet(third)?][..], &digest].concat();
            Ds::read(&data).ok_or_else(form)?
        } else if kind.eq_ignore_ascii_case("DNSKEY") {
            use base64::Engine;
            let key = base64::engine::general_purpose::STANDARD.decode(&data).map_err(|_| form())?;
            let [high, low] = first.to_be_bytes();
            let data = [&[high, low, octet(second)?, octet(third)?][..], &key].concat();
            Ds::of_key(zone.as_ref(), &data).ok_or(AnchorError::Useless(number))?
        } else {
            return Err(form());
        };
        if !ds.is_known() {
            return Err(AnchorError::Useless(number));
        }
        match self.positive.iter_mut().find(|(known, _)| *known == zone) {
            Some((_, all)) => all.push(ds),
            None => self.positive.push((zone, vec![ds])),
        }
        Ok(())
    }

    /// Zones that have an anchor.
    pub(super) fn zones(&self) -> impl Iterator<Item = &NameBuf> {
        self.positive.iter().map(|(zone, _)| zone)
    }

    /// What vouches for the keys of `zone`, if it has an anchor of its own.
    pub(super) fn at(&self, zone: NameRef<'_>) -> Option<&[Ds]> {
        self.positive.iter().find(|(anchor, _)| anchor.as_ref() == zone).map(|(_, all)| &**all)
    }

    /// The same zones, vouched for by what `change` makes of it.
    pub(super) fn map(&self, change: impl Fn(NameRef<'_>, &[Ds]) -> Vec<Ds>) -> Self {
        let positive = self.positive.iter().map(|(zone, all)| (zone.clone(), change(zone.as_ref(), all)));
        Self { positive: positive.collect(), ..self.clone() }
    }

    /// What stands for `name`: the deepest of all that hold it decides; of two for one name, not to validate goes first, and
    /// an anchor goes before the word that the zone is asked elsewhere.
    pub(super) fn of(&self, name: NameRef<'_>) -> Trust<'_> {
        let deepest = |zones: &[NameBuf]| {
            let of = zones.iter().map(NameBuf::as_ref).filter(|zone| name.is_at_or_below(*zone));
            of.map(NameRef::label_count).max()
        };
        let anchor = self.positive.iter().filter(|(zone, _)| name.is_at_or_below(zone.as_ref()));
        let Some((zone, all)) = anchor.max_by_key(|(zone, _)| zone.as_ref().label_count()) else {
            return Trust::Suspended;
        };
        let depth = zone.as_ref().label_count();
        if deepest(&self.negative).is_some_and(|negative| negative >= depth)
            || deepest(&self.apart).is_some_and(|apart| apart > depth)
        {
            return Trust::Suspended;
        }
        Trust::Anchor(zone.as_ref(), all)
    }
}

fn octets_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use hickory_proto::dnssec::{PublicKey, TrustAnchors};

    use super::*;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    fn anchored(anchors: &Anchors, of: &str) -> Option<String> {
        match anchors.of(name(of).as_ref()) {
            Trust::Anchor(zone, _) => Some(zone.to_string()),
            Trust::Suspended => None,
        }
    }

    /// Of two sources: IANA's digests here, the keys in hickory.
    #[test]
    fn the_digests_built_in_are_of_the_roots_keys() {
        let keys = TrustAnchors::default();
        assert_eq!(keys.len(), 2);
        let mut found: Vec<Ds> = (0..2)
            .map(|i| {
                let key = keys.get(i).expect("a key").public_bytes().to_vec();
                Ds::of_key(NameRef::ROOT, &[&[1, 1, 3, 8][..], &key].concat()).expect("a key that signs")
            })
            .collect();
        found.sort_by_key(|ds| ds.tag);
        assert_eq!(Anchors::default().positive, [(name("."), found)]);
    }

    #[test]
    fn a_file_has_records_in_the_form_of_a_zone() {
        let text = "; remark\n\n.\t86400\tIN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D0845 8E880409BBC683457104237C7F8EC8D ; root\n\
                    Corp.Example. DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4= ;{id = 3613}\n";
        let anchors = Anchors::read(text).expect("anchors");
        assert_eq!(anchors.positive.len(), 2);
        assert_eq!((anchors.positive[0].1.len(), anchors.positive[1].1[0].algorithm), (1, 15));
        // RFC 8080 section 6: the tag of that key.
        assert_eq!(anchors.positive[1].1[0].tag, 3613);
        assert_eq!(anchored(&anchors, "www.corp.example").as_deref(), Some("corp.example"));
        assert_eq!(anchored(&anchors, "www.example").as_deref(), Some("."));
        // Where the root is not in it, the one built in stays.
        let only = Anchors::read("corp.example. IN DS 1 13 2 00").expect("anchors");
        assert_eq!(only.positive.len(), 2);
        for (text, error) in [
            ("", AnchorError::Empty),
            ("; nothing\n", AnchorError::Empty),
            ("\n. IN A 192.0.2.1", AnchorError::Form(2)),
            (". DS 1 13 2", AnchorError::Form(1)),
            (". DS 1 13 2 0", AnchorError::Form(1)),
            (". DS 1 13 2 zz", AnchorError::Form(1)),
            (". DS 65536 13 2 00", AnchorError::Form(1)),
            (". DS 1 256 2 00", AnchorError::Form(1)),
            (". DNSKEY 257 3 13 !", AnchorError::Form(1)),
            (". DS", AnchorError::Form(1)),
            (".", AnchorError::Form(1)),
            (". DS 1 5 2 00", AnchorError::Useless(1)),
            (". DS 1 13 3 00", AnchorError::Useless(1)),
            (". DNSKEY 0 3 13 AAAA", AnchorError::Useless(1)),
            (&". DS 1 13 2 00\n".repeat(257), AnchorError::TooMany),
        ] {
            assert_eq!(Anchors::read(text), Err(error), "{text:?}");
        }
        // An RSA key by which nothing can be checked here: an exponent of 34 bits.
        use base64::Engine;
        let key = [&[5, 2, 0, 0, 0, 1][..], &[7; 256]].concat();
        let text = format!(". DNSKEY 257 3 8 {}", base64::engine::general_purpose::STANDARD.encode(key));
        assert_eq!(Anchors::read(&text), Err(AnchorError::Useless(1)));
    }

    #[test]
    fn the_deepest_word_on_a_name_counts() {
        let anchors = Anchors::read("corp.example. DS 1 13 2 00\nlab.dev.example. DS 1 13 2 00").expect("anchors");
        let anchors = anchors
            .without([name("broken.example"), name("corp.example"), name("in.other.example")])
            .apart([name("dev.example"), name("lab.dev.example"), name("other.example")]);
        for (of, zone) in [
            ("www.example", Some(".")),
            ("broken.example", None),
            ("a.broken.example", None),
            ("notbroken.example", Some(".")),
            ("corp.example", None),
            ("dev.example", None),
            ("x.dev.example", None),
            ("x.lab.dev.example", Some("lab.dev.example")),
            ("x.other.example", None),
        ] {
            assert_eq!(anchored(&anchors, of).as_deref(), zone, "{of}");
        }
    }
}
