//! One zone as the catalog asks it: hickory's in-memory zone, with the question of what exists settled first.
//!
//! The zone behind tries wildcards of every ancestor, also for a name that exists with other types. RFC 4592 section
//! 3.3.1 allows the wildcard of the closest encloser alone, and only for a name that does not exist. Knowing every node
//! of the zone, this one says NODATA and NXDOMAIN itself and passes on what has an answer.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{LowerName, Name, RecordSet, RecordType, RrKey, TSigResponseContext};
use hickory_server::server::{Request, RequestInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{
    AuthLookup, AxfrPolicy, LookupControlFlow, LookupError, LookupOptions, ZoneHandler, ZoneTransfer, ZoneType,
};

use crate::answer::{MAX_ADDRESSES, MAX_RECORDS};

/// A zone and its nodes.
pub(super) struct ExactZone {
    zone: InMemoryZoneHandler,
    /// Every name that exists, empty non-terminals too, and its types.
    nodes: HashMap<LowerName, Vec<RecordType>>,
}

/// What a name and type come to.
#[derive(Debug, PartialEq, Eq)]
enum Settled {
    /// There are records: the zone behind has them.
    Records,
    /// The name exists, the type does not.
    NoData,
    /// Nothing of this name exists.
    NxDomain,
}

impl ExactZone {
    /// Checks the records and takes them. The error says what is wrong with them.
    pub(super) fn new(origin: Name, records: BTreeMap<RrKey, RecordSet>) -> Result<Self, String> {
        let apex = LowerName::new(&origin);
        let mut nodes: HashMap<LowerName, Vec<RecordType>> = HashMap::new();
        for (key, set) in &records {
            let owner = key.name();
            let count = set.records_count();
            let most = match key.record_type {
                RecordType::A | RecordType::AAAA => MAX_ADDRESSES,
                _ => MAX_RECORDS,
            };
            if count > most {
                return Err(format!("`{owner}` has {count} {} records, at most {most} are shown", key.record_type));
            }
            if !apex.zone_of(owner) {
                return Err(format!("`{owner}` is outside the zone"));
            }
            if key.record_type == RecordType::NS && *owner != apex {
                return Err(format!("`{owner}` is delegated away, which a local zone cannot do"));
            }
            nodes.entry(owner.clone()).or_default().push(key.record_type);
            let mut above = owner.clone();
            while above != apex {
                above = above.base_name();
                nodes.entry(above.clone()).or_default();
            }
        }
        let zone = InMemoryZoneHandler::new(origin, records, ZoneType::Primary, AxfrPolicy::Deny)?;
        Ok(Self { zone, nodes })
    }

    fn settle(&self, name: &LowerName, rtype: RecordType) -> Settled {
        if !self.zone.origin().zone_of(name) {
            return Settled::NxDomain;
        }
        let has = |types: &Vec<RecordType>| {
            let any = rtype == RecordType::ANY && !types.is_empty();
            let alias = |t: &RecordType| {
                *t == RecordType::CNAME
                    || (*t == RecordType::ANAME && matches!(rtype, RecordType::A | RecordType::AAAA))
            };
            if any || types.iter().any(|t| *t == rtype || alias(t)) { Settled::Records } else { Settled::NoData }
        };
        if let Some(types) = self.nodes.get(name) {
            return has(types);
        }
        // Up to the closest encloser; the apex exists, so this ends there at the latest.
        let mut child = name.clone();
        let mut above = name.base_name();
        while !self.nodes.contains_key(&above) && !above.is_root() {
            child = above.clone();
            above = above.base_name();
        }
        self.nodes.get(&child.into_wildcard()).map_or(Settled::NxDomain, has)
    }
}

#[async_trait::async_trait]
impl ZoneHandler for ExactZone {
    fn zone_type(&self) -> ZoneType {
        ZoneType::Primary
    }

    fn axfr_policy(&self) -> AxfrPolicy {
        AxfrPolicy::Deny
    }

    fn origin(&self) -> &LowerName {
        self.zone.origin()
    }

    async fn lookup(
        &self,
        name: &LowerName,
        rtype: RecordType,
        request_info: Option<&RequestInfo<'_>>,
        lookup_options: LookupOptions,
    ) -> LookupControlFlow<AuthLookup> {
        if matches!(rtype, RecordType::AXFR | RecordType::IXFR) {
            return LookupControlFlow::Break(Err(ResponseCode::Refused.into()));
        }
        match self.settle(name, rtype) {
            Settled::Records => self.zone.lookup(name, rtype, request_info, lookup_options).await,
            Settled::NoData => LookupControlFlow::Continue(Err(LookupError::NameExists)),
            Settled::NxDomain => LookupControlFlow::Continue(Err(ResponseCode::NXDomain.into())),
        }
    }

    async fn search(
        &self,
        request: &Request,
        lookup_options: LookupOptions,
    ) -> (LookupControlFlow<AuthLookup>, Option<TSigResponseContext>) {
        match request.request_info() {
            Ok(info) => {
                (self.lookup(info.query.name(), info.query.query_type(), Some(&info), lookup_options).await, None)
            }
            Err(error) => (LookupControlFlow::Break(Err(error)), None),
        }
    }

    async fn nsec_records(&self, name: &LowerName, lookup_options: LookupOptions) -> LookupControlFlow<AuthLookup> {
        self.zone.nsec_records(name, lookup_options).await
    }

    async fn zone_transfer(
        &self,
        _request: &Request,
        _lookup_options: LookupOptions,
        _now: u64,
    ) -> Option<(Result<ZoneTransfer, LookupError>, Option<TSigResponseContext>)> {
        Some((Err(ResponseCode::Refused.into()), None))
    }
}
