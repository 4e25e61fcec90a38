//! Public suffixes: where a name's registrable domain and tenant end.
//!
//! Between [`crate::name`] (labels) and the accounts of [`crate::ledger`] (who is told). The list is compiled in; it
//! is fed labels from the right, so nothing is copied. Knows no session and no rule.

use psl::{List, Psl, Type};

use crate::name::{LabelOffsets, NameRef};

/// Labels of the owner of a block of IPv6 addresses: `ip6.arpa` and the eight digits of a /32, the least that a registry
/// gives to a network. The suffix list ends at `ip6.arpa`, which would make one owner of nearly all addresses in use, as
/// they begin with the same digit.
const REVERSE_TENANT: usize = 10;
/// The reverse tree of IPv6 (RFC 3596 section 2.5).
const IP6_ARPA: &[u8] = b"\x03ip6\x04arpa\x00";

/// Where the owners of a name begin, counted in labels from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Labels left of the tenant (registrable domain with private suffixes counted as public suffixes).
    pub tenant_at: u8,
    /// Labels left of the registrable domain by ICANN suffixes alone; at least `tenant_at`.
    pub icann_at: u8,
    /// Whether a private suffix (a multi-tenant platform) stands between the two.
    pub multi_tenant: bool,
    /// Octets left of the tenant in wire form.
    tenant_octets: u8,
    /// Octets left of the ICANN-level domain.
    icann_octets: u8,
}

impl Split {
    /// Of a name that has not been looked at: the whole name is its own owner.
    pub const NONE: Self = Self { tenant_at: 0, icann_at: 0, multi_tenant: false, tenant_octets: 0, icann_octets: 0 };

    /// Splits `name`. A name that is itself a suffix is its own tenant; a top-level domain that is not listed counts
    /// as a suffix of one label (the list's default rule). Allocates nothing.
    pub fn of(name: NameRef<'_>) -> Self {
        let offsets = LabelOffsets::of(name);
        let count = offsets.count();
        let (suffix, typ) = suffix_labels(name, &offsets, count);
        // Two labels and these octets: no longer label that ends like them.
        if suffix == 2 && count > 2 && name.as_wire().ends_with(IP6_ARPA) {
            return Self::at(&offsets, REVERSE_TENANT.min(count), suffix + 1, true);
        }
        let tenant = (suffix + 1).min(count);
        // The list has no call for ICANN rules alone: a private suffix loses its leftmost label and is looked up
        // again, until the suffix found is not private. Each turn drops a label, so this ends.
        let (mut icann_suffix, mut found) = (suffix, typ);
        while found == Some(Type::Private) && icann_suffix > 1 {
            let shorter = icann_suffix - 1;
            (icann_suffix, found) = suffix_labels(name, &offsets, shorter);
            icann_suffix = icann_suffix.min(shorter);
        }
        Self::at(&offsets, tenant, icann_suffix + 1, typ == Some(Type::Private))
    }

    /// Of a name whose tenant has so many labels, at most all of them, and whose ICANN-level domain so many of these.
    fn at(offsets: &LabelOffsets, tenant: usize, icann: usize, multi_tenant: bool) -> Self {
        let (count, icann) = (offsets.count(), icann.min(tenant));
        Self {
            // A name has at most 127 labels.
            tenant_at: (count - tenant) as u8,
            icann_at: (count - icann) as u8,
            multi_tenant,
            // Below the 255 octets of a name.
            tenant_octets: offsets.offset(count - tenant) as u8,
            icann_octets: offsets.offset(count - icann) as u8,
        }
    }

    /// The same name with a platform as one owner: whoever is told of its tenants is told of the choice among them, so
    /// the tenant account of this split is that of the ICANN-level domain and pays for all that stands left of it.
    #[must_use]
    pub const fn whole(self) -> Self {
        Self { tenant_at: self.icann_at, tenant_octets: self.icann_octets, multi_tenant: false, ..self }
    }

    /// The tenant-level domain of `name`, which must be the name that was split.
    pub fn tenant<'n>(&self, name: NameRef<'n>) -> NameRef<'n> {
        name.at_octet(self.tenant_octets.into())
    }

    /// The registrable domain of `name` by ICANN suffixes alone; `name` must be the name that was split.
    pub fn icann<'n>(&self, name: NameRef<'n>) -> NameRef<'n> {
        name.at_octet(self.icann_octets.into())
    }
}

/// Labels in the public suffix of the `within` rightmost labels of `name`, and which kind of rule said so.
fn suffix_labels(name: NameRef<'_>, offsets: &LabelOffsets, within: usize) -> (usize, Option<Type>) {
    let info = List.find(offsets.rev_labels(name).take(within));
    // The list counts octets as text, a dot between two labels; a label of n octets takes n + 1 of that plus one.
    let mut left = info.len;
    let mut labels = 0;
    for label in offsets.rev_labels(name).take(within) {
        if left < label.len() || left == 0 {
            break;
        }
        labels += 1;
        left = left.saturating_sub(label.len() + 1);
    }
    (labels, info.typ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{NameBuf, QName};
    use proptest::prelude::*;

    fn split(text: &str) -> (String, String, bool) {
        let name = NameBuf::from_text(text).expect("test name");
        let split = Split::of(name.as_ref());
        (split.tenant(name.as_ref()).to_string(), split.icann(name.as_ref()).to_string(), split.multi_tenant)
    }

    #[test]
    fn owners_by_both_kinds_of_rule() {
        for (name, tenant, icann, multi) in [
            ("www.example.com", "example.com", "example.com", false),
            ("WWW.Foo.CO.UK", "foo.co.uk", "foo.co.uk", false),
            ("a.b.user.github.io", "user.github.io", "github.io", true),
            ("user.github.io", "user.github.io", "github.io", true),
            // Suffixes are their own tenant.
            ("github.io", "github.io", "github.io", true),
            ("com", "com", "com", false),
            ("co.uk", "co.uk", "co.uk", false),
            (".", ".", ".", false),
            // A bucket is a tenant, the platform one ICANN-level domain.
            ("bucket.s3.amazonaws.com", "bucket.s3.amazonaws.com", "amazonaws.com", true),
            ("s3.amazonaws.com", "s3.amazonaws.com", "amazonaws.com", true),
            ("x.y.cloudfront.net", "y.cloudfront.net", "cloudfront.net", true),
            // Unlisted top-level domain: the default rule.
            ("a.b.unknown-tld-zz", "b.unknown-tld-zz", "b.unknown-tld-zz", false),
            ("4.3.2.1.in-addr.arpa", "1.in-addr.arpa", "1.in-addr.arpa", false),
            // The holder of a /32 is a tenant: all of the IPv6 in use begins with one digit.
            ("4.3.2.1.8.b.d.0.1.0.0.2.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa", "2.ip6.arpa", true),
            ("8.b.d.0.1.0.0.2.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa", "2.ip6.arpa", true),
            ("0.0.2.ip6.arpa", "0.0.2.ip6.arpa", "2.ip6.arpa", true),
            ("ip6.arpa", "ip6.arpa", "ip6.arpa", false),
            ("a.b.\\003ip6.arpa", "\\003ip6.arpa", "\\003ip6.arpa", false),
            // Wildcard rule `*.ck` and its exception `!www.ck`.
            ("a.b.c.ck", "b.c.ck", "b.c.ck", false),
            ("x.www.ck", "www.ck", "www.ck", false),
        ] {
            assert_eq!(split(name), (tenant.into(), icann.into(), multi), "{name}");
        }
    }

    #[test]
    fn a_platform_as_one_owner_pays_for_the_choice_of_tenants() {
        let name = NameBuf::from_text("x.y.cloudfront.net").expect("test name");
        let whole = Split::of(name.as_ref()).whole();
        assert_eq!(whole.tenant(name.as_ref()).to_string(), "cloudfront.net");
        assert_eq!(whole.icann(name.as_ref()).to_string(), "cloudfront.net");
        assert!(!whole.multi_tenant);
        let name = NameBuf::from_text("www.example.com").expect("test name");
        assert_eq!(Split::of(name.as_ref()).whole(), Split::of(name.as_ref()));
    }

    #[test]
    fn the_longest_name_splits() {
        let text = vec!["a"; 127].join(".");
        let name = NameBuf::from_text(&text).expect("127 labels");
        let split = Split::of(name.as_ref());
        assert_eq!((split.tenant_at, split.icann_at), (125, 125));
    }

    proptest! {
        /// Any octets at all, so also labels that look like text of the list with dots or other octets inside.
        #[test]
        fn any_name_splits_within_its_labels(octets in proptest::collection::vec(any::<u8>(), 0..260)) {
            if let Ok((name, _)) = QName::read(&octets) {
                check(name.as_ref())?;
            }
        }

        #[test]
        fn any_labels_split_below_any_suffix(
            labels in proptest::collection::vec("[\\x00-\\xff]{1,4}", 0..40),
            suffix in proptest::sample::select(vec!["", "com", "github.io", "s3.amazonaws.com", "co.uk", "ck", "zz", "ip6.arpa"]),
        ) {
            let mut wire = Vec::new();
            for label in &labels {
                let label: Vec<u8> = label.chars().map(|c| c as u32 as u8).collect();
                wire.push(label.len() as u8);
                wire.extend(label);
            }
            let tail = NameBuf::from_text(suffix).expect("suffix");
            wire.extend(tail.as_ref().as_wire());
            let (name, _) = QName::read(&wire).expect("short enough");
            check(name.as_ref())?;
            let split = Split::of(name.as_ref());
            if !labels.is_empty() && suffix == "com" {
                let icann = split.icann(name.as_ref());
                prop_assert!(icann.is_at_or_below(tail.as_ref()));
            }
        }
    }

    fn check(name: NameRef<'_>) -> Result<(), TestCaseError> {
        let split = Split::of(name);
        let count = name.label_count();
        prop_assert!(split.tenant_at <= split.icann_at);
        prop_assert!(split.icann_at as usize <= count.saturating_sub(1));
        prop_assert!(split.tenant(name).is_at_or_below(split.icann(name)));
        prop_assert!(split.multi_tenant || split.tenant_at == split.icann_at);
        // The owner does not depend on what stands left of it.
        let tenant = split.tenant(name);
        let again = Split::of(tenant);
        prop_assert_eq!(again.tenant_at, 0);
        prop_assert_eq!(again.icann(tenant), split.icann(name));
        Ok(())
    }
}
