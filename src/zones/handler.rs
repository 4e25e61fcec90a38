//! One zone as the catalog asks it: hickory's in-memory zone, with the question of what exists settled first.
//!
//! The zone behind tries wildcards of every ancestor, also for a name that exists with other types, and none for a name that
//! begins with an asterisk. RFC 4592 section 3.3.1 allows the wildcard of the closest encloser alone, and only for a name that
//! does not exist, whatever its labels. Knowing every node of the zone, this one says NODATA and NXDOMAIN itself, takes from a
//! wildcard what it has for a name, and passes on what has an answer of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{LowerName, Name, RecordSet, RecordType, RrKey, TSigResponseContext};
use hickory_server::server::{Request, RequestInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{
    AuthLookup, AxfrPolicy, LookupControlFlow, LookupError, LookupOptions, LookupRecords, ZoneHandler, ZoneTransfer,
    ZoneType,
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
    /// This wildcard answers for the name, with its records of this type.
    Wildcard(LowerName, RecordType),
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
        let answering = |types: &Vec<RecordType>| {
            let alias = |t: &RecordType| {
                (*t == RecordType::CNAME && !is_of_the_alias(rtype))
                    || (*t == RecordType::ANAME && matches!(rtype, RecordType::A | RecordType::AAAA))
            };
            types.iter().copied().find(|t| rtype == RecordType::ANY || *t == rtype || alias(t))
        };
        if let Some(types) = self.nodes.get(name) {
            return answering(types).map_or(Settled::NoData, |_| Settled::Records);
        }
        // Up to the closest encloser; the apex exists, so this ends there at the latest.
        let mut child = name.clone();
        let mut above = name.base_name();
        while !self.nodes.contains_key(&above) && !above.is_root() {
            child = above.clone();
            above = above.base_name();
        }
        let wildcard = child.into_wildcard();
        match self.nodes.get(&wildcard).map(answering) {
            Some(Some(found)) => Settled::Wildcard(wildcard, found),
            Some(None) => Settled::NoData,
            None => Settled::NxDomain,
        }
    }

    /// What the zone behind finds at `wildcard`, where it follows an ANAME, as records of `name`.
    async fn followed(
        &self,
        wildcard: &LowerName,
        rtype: RecordType,
        name: &LowerName,
        info: Option<&RequestInfo<'_>>,
        options: LookupOptions,
    ) -> LookupControlFlow<AuthLookup> {
        let found = self.zone.lookup(wildcard, rtype, info, options).await;
        found.map(|found| {
            let owner = Name::from(wildcard);
            let sets = found.iter().filter(|record| record.name == owner).fold(BTreeMap::new(), |mut sets, record| {
                let set = || RecordSet::with_ttl(Name::from(name), record.record_type(), record.ttl);
                sets.entry(record.record_type()).or_insert_with(set).add_rdata(record.data.clone());
                sets
            });
            AuthLookup::answers(LookupRecords::many(options, sets.into_values().map(Arc::new).collect()), None)
        })
    }

    /// The records of this type that `wildcard` has, as those of `name`.
    async fn made(&self, wildcard: LowerName, rtype: RecordType, name: &LowerName) -> Option<RecordSet> {
        let records = self.zone.records().await;
        let set = records.get(&RrKey::new(wildcard, rtype))?;
        let mut made = RecordSet::with_ttl(Name::from(name), rtype, set.ttl());
        for record in set.records_without_rrsigs() {
            made.add_rdata(record.data.clone());
        }
        Some(made)
    }
}

/// Whether records of this type belong to an alias itself (RFC 4034 sections 3 and 4, RFC 4035 section 2.5): they are not asked
/// of where it leads.
fn is_of_the_alias(rtype: RecordType) -> bool {
    matches!(rtype, RecordType::RRSIG | RecordType::NSEC)
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
            // By the wildcard's own name: the zone behind looks for none above a name that begins with an asterisk.
            Settled::Wildcard(wildcard, RecordType::ANAME) => {
                self.followed(&wildcard, rtype, name, request_info, lookup_options).await
            }
            Settled::Wildcard(wildcard, found) => match self.made(wildcard, found, name).await {
                Some(made) => {
                    let answers = LookupRecords::new(lookup_options, Arc::new(made));
                    LookupControlFlow::Continue(Ok(AuthLookup::answers(answers, None)))
                }
                // It was among the records when they were taken over, and they never change.
                None => LookupControlFlow::Continue(Err(LookupError::NameExists)),
            },
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
