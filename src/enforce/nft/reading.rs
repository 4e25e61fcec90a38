//! What the kernel says of our table: its handle, its rules, its sets and their elements, and its count of commits.

use super::super::netlink::{Attributes, DUMP_TRIES, NetlinkError};
use super::Nft;
use super::sets::{self, Held, MSG_GETSETELEM, Set};
use super::table;
use super::watch::{INET, SUBSYS};

const MSG_GETGEN: u16 = 16;

impl Nft {
    /// Handle and flags of the table, if it is there.
    pub(super) fn table_handle(&mut self) -> Result<Option<(u64, u32)>, NetlinkError> {
        let mut found = None;
        let name = self.layout.table.clone();
        let result = self.netlink.request(
            SUBSYS | table::MSG_GETTABLE,
            INET,
            |w| w.text(table::TABLE_NAME, &name),
            |attributes| {
                let attributes = Attributes(attributes);
                found = attributes.be64(table::TABLE_HANDLE).zip(attributes.be32(table::TABLE_FLAGS));
            },
        );
        match result {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            result => self.noting_io(result).map(|()| found),
        }
    }

    /// Whether our chains on packets' way let pass what no rule decides, as they were made. Where others interrupt every reading
    /// nothing speaks against it.
    pub(super) fn chains_accept(&mut self) -> Result<bool, NetlinkError> {
        const ACCEPT: u32 = 1;
        const ON_WAY: [&str; 2] = [table::FORWARD, table::UNTRACKED];
        let name = self.layout.table.clone();
        for _ in 0..DUMP_TRIES {
            let mut accept = 0;
            let result = self.netlink.dump(
                SUBSYS | table::MSG_GETCHAIN,
                INET,
                |_| {},
                |attributes| {
                    let chain = Attributes(attributes);
                    let is = |kind, text: &str| {
                        chain.find(kind).and_then(|octets| octets.strip_suffix(b"\0")) == Some(text.as_bytes())
                    };
                    if is(table::CHAIN_TABLE, &name) && ON_WAY.iter().any(|on_way| is(table::CHAIN_NAME, on_way)) {
                        accept += usize::from(chain.be32(table::CHAIN_POLICY) == Some(ACCEPT));
                    }
                },
            );
            match result {
                Err(NetlinkError::Interrupted) if accept < ON_WAY.len() => {}
                Ok(()) | Err(NetlinkError::Interrupted) => return Ok(accept == ON_WAY.len()),
                Err(error) => return self.noting_io(Err(error)),
            }
        }
        Ok(true)
    }

    /// Handles of our rules. A reading that others interrupted is taken if it is `good`.
    pub(super) fn rule_handles(&mut self, good: impl Fn(&[u64]) -> bool) -> Result<Vec<u64>, NetlinkError> {
        let name = self.layout.table.clone();
        for _ in 0..DUMP_TRIES {
            let mut handles = Vec::new();
            let result = self.netlink.dump(
                SUBSYS | table::MSG_GETRULE,
                INET,
                |w| w.text(table::RULE_TABLE, &name),
                |attributes| handles.extend(Attributes(attributes).be64(table::RULE_HANDLE)),
            );
            match result {
                Err(NetlinkError::Interrupted) if good(&handles) => return Ok(handles),
                Err(NetlinkError::Interrupted) => {}
                result => return self.noting_io(result).map(|()| handles),
            }
        }
        Err(NetlinkError::Interrupted)
    }

    /// Every element of a set with what is left of its lifetime, as they were at one moment.
    pub(super) fn elements(&mut self, set: Set) -> Result<Vec<Held>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            if let (elements, true) = self.read_elements(set)? {
                return Ok(elements);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    /// The same, read once, and whether nobody has changed anything meanwhile.
    pub(super) fn read_elements(&mut self, set: Set) -> Result<(Vec<Held>, bool), NetlinkError> {
        let name = self.layout.table.clone();
        let mut elements = Vec::new();
        let result = self.netlink.dump(
            SUBSYS | MSG_GETSETELEM,
            INET,
            |w| sets::write_name(w, &name, set.name()),
            |attributes| sets::read_elements(attributes, |held| elements.push(held)),
        );
        let whole = !matches!(result, Err(NetlinkError::Interrupted));
        if whole {
            self.noting_io(result)?;
        }
        Ok((elements, whole))
    }

    /// Whether existing pin sets have the configured size; true where there are none.
    pub(super) fn same_size(&mut self) -> Result<bool, NetlinkError> {
        let name = self.layout.table.clone();
        let mut same = true;
        for set in Set::fixed().filter(|set| set.kind.is_large()) {
            let wanted = table::size_of_set(set.kind, self.layout.size);
            let result = self.netlink.request(
                SUBSYS | table::MSG_GETSET,
                INET,
                |w| {
                    w.text(table::SET_TABLE, &name);
                    w.text(table::SET_NAME, set.name());
                },
                |attributes| {
                    let size =
                        Attributes(attributes).inside(table::SET_DESC).and_then(|d| d.be32(table::SET_DESC_SIZE));
                    same &= size == Some(wanted);
                },
            );
            match result {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                result => self.noting_io(result)?,
            }
        }
        Ok(same)
    }

    pub(super) fn generation(&mut self) -> Result<u32, NetlinkError> {
        const GEN_ID: u16 = 1;
        let mut generation = 0;
        let result = self.netlink.request(
            SUBSYS | MSG_GETGEN,
            0,
            |_| {},
            |attributes| generation = Attributes(attributes).be32(GEN_ID).unwrap_or(0),
        );
        self.noting_io(result).map(|()| generation)
    }

    /// A socket that failed is replaced before anything else is asked of it.
    fn noting_io<T>(&mut self, result: Result<T, NetlinkError>) -> Result<T, NetlinkError> {
        if let Err(NetlinkError::Io(error)) = &result {
            self.lose_socket(error.to_string());
        }
        result
    }
}
