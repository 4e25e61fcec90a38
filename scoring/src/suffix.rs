//! Public suffixes: where a name's registrable domain and tenant end.

use crate::name::NameRef;

/// Where the owners of a name begin, counted in labels from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Labels left of the tenant (registrable domain with private suffixes counted as public suffixes).
    pub tenant_at: u8,
    /// Labels left of the registrable domain by ICANN suffixes alone; at least `tenant_at`.
    pub icann_at: u8,
    /// Whether a private suffix (a multi-tenant platform) stands between the two.
    pub multi_tenant: bool,
}

impl Split {
    /// Splits `name`. A name that is itself a suffix is its own tenant.
    pub fn of(name: NameRef<'_>) -> Self {
        let _ = name;
        todo!()
    }

    /// The tenant-level domain.
    pub fn tenant<'n>(&self, name: NameRef<'n>) -> NameRef<'n> {
        name.strip_left(self.tenant_at as usize)
    }

    /// The registrable domain by ICANN suffixes alone.
    pub fn icann<'n>(&self, name: NameRef<'n>) -> NameRef<'n> {
        name.strip_left(self.icann_at as usize)
    }
}
