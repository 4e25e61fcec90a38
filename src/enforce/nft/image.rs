//! A table as the kernel holds it, whoever built it: counts, comments and one digest over everything that decides about
//! packets.
//!
//! Read over netlink, without the `nft` tool. Handles, use counts, counters and their values are left out, so that the
//! digest stays the same for as long as nobody changes the table; rules, their order, sets and their elements, hooks,
//! priorities, policies and whether the table is switched off are in it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::super::netlink::{Attributes, Netlink, NetlinkError, Writer};
use super::sets::MSG_GETSETELEM;
use super::table::{
    CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, MSG_GETCHAIN, MSG_GETRULE, MSG_GETSET, MSG_GETTABLE, RULE_TABLE, SET_NAME,
    SET_TABLE, TABLE_FLAGS, TABLE_NAME,
};
use super::watch::SUBSYS;
use super::{kernel, open};
use crate::enforce::Error;

const TABLE_USERDATA: u16 = 6;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const CHAIN_FLAGS: u16 = 10;
const CHAIN_USERDATA: u16 = 12;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
/// Flags, key type and length, data type and length.
const SET_SHAPE: [u16; 5] = [3, 4, 5, 6, 7];
const ELEMENT_LIST: u16 = 3;
/// Key, data, flags and the key's end.
const ELEMENT: [u16; 4] = [1, 2, 3, 10];
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// Expressions whose data changes with every packet.
const COUNTING: &[u8] = b"counter\0";

/// Most reads of a whole table until two of them are the same.
const READS: usize = 8;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// Frames of bridges.
    Bridge = 7,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Inet, Self::Bridge];

    /// As the `nft` tool writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

/// One chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Chain {
    /// Its comment.
    pub comment: Option<String>,
    /// Its rules, in order: their comments.
    pub rules: Vec<Option<String>>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// Its comment.
    pub comment: Option<String>,
    /// Its chains.
    pub chains: BTreeMap<String, Chain>,
    /// Hex SHA-256 over what decides about packets, the chain that was left out excepted.
    pub digest: String,
}

/// Tables of one name, by family.
pub type Images = BTreeMap<Family, Image>;

/// Reads tables of the network namespace it was opened in.
#[derive(Debug)]
pub struct Ruleset {
    netlink: Netlink,
}

impl Ruleset {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where there is no netfilter netlink.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { netlink: open()? })
    }

    /// The tables of this name, of whatever family. As [`Ruleset::table`].
    ///
    /// # Errors
    ///
    /// As [`Ruleset::table`].
    pub fn tables(&mut self, name: &str, apart: &str) -> Result<Images, Error> {
        let mut images = Images::new();
        for family in Family::ALL {
            images.extend(self.table(family, name, apart)?.map(|image| (family, image)));
        }
        Ok(images)
    }

    /// The table of this family and name, if there is one. The chain `apart` is shown and not digested: whoever built
    /// the table may keep the digest in its comment.
    ///
    /// Needs `CAP_NET_ADMIN`, though it changes nothing: the kernel tells nobody else (`nfnetlink_rcv`).
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] with `EPERM` where the capability is missing; [`Error::Io`] where the table changed whenever it
    /// was read.
    pub fn table(&mut self, family: Family, name: &str, apart: &str) -> Result<Option<Image>, Error> {
        // Whoever changes whatever table interrupts whoever reads one, so that says nothing of this table: what is found the
        // same twice is taken.
        let mut before = None;
        for _ in 0..READS {
            match self.read(family, name, apart) {
                Ok(image) if before.as_ref() == Some(&image) => return Ok(image),
                Ok(image) => before = Some(image),
                // It was removed while it was read.
                Err(error) if error.errno() == Some(libc::ENOENT) => before = None,
                Err(error) => return Err(kernel(&error, "read the table")),
            }
        }
        Err(kernel(&NetlinkError::Interrupted, "read the table"))
    }

    fn read(&mut self, family: Family, name: &str, apart: &str) -> Result<Option<Image>, NetlinkError> {
        let tables = self.dump(MSG_GETTABLE, family, |_| {})?;
        let Some(table) = tables.iter().map(|table| Attributes(table)).find(|t| text(t.find(TABLE_NAME)) == name)
        else {
            return Ok(None);
        };
        let mut image = Image { comment: comment(table.find(TABLE_USERDATA)), ..Image::default() };
        let mut digest = Parts::default();
        digest.add(&table.be32(TABLE_FLAGS).unwrap_or(0).to_be_bytes());

        let mut hooks = BTreeMap::new();
        for chain in &self.dump(MSG_GETCHAIN, family, |_| {})? {
            let chain = Attributes(chain);
            if text(chain.find(CHAIN_TABLE)) == name {
                let shape = [CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE, CHAIN_FLAGS].map(|kind| owned(chain.find(kind)));
                let chain_name = text(chain.find(CHAIN_NAME));
                let comment = comment(chain.find(CHAIN_USERDATA));
                image.chains.insert(chain_name.clone(), Chain { comment, rules: Vec::new() });
                hooks.insert(chain_name, shape);
            }
        }
        hooks.remove(apart);
        for (chain, shape) in &hooks {
            digest.add(chain.as_bytes());
            shape.iter().for_each(|part| digest.add(part));
        }

        for rule in &self.dump(MSG_GETRULE, family, |w| w.text(RULE_TABLE, name))? {
            let rule = Attributes(rule);
            // The name is a filter that older kernels do not know.
            if text(rule.find(RULE_TABLE)) != name {
                continue;
            }
            let chain = text(rule.find(RULE_CHAIN));
            if chain != apart {
                digest.add(chain.as_bytes());
                digest_expressions(&mut digest, rule.find(RULE_EXPRESSIONS).unwrap_or(&[]));
            }
            image.chains.entry(chain).or_default().rules.push(comment(rule.find(RULE_USERDATA)));
        }

        let mut sets = BTreeMap::new();
        for set in &self.dump(MSG_GETSET, family, |w| w.text(SET_TABLE, name))? {
            let set = Attributes(set);
            if text(set.find(SET_TABLE)) == name {
                sets.insert(text(set.find(SET_NAME)), SET_SHAPE.map(|kind| owned(set.find(kind))));
            }
        }
        for (set, shape) in sets {
            digest.add(set.as_bytes());
            shape.iter().for_each(|part| digest.add(part));
            let mut elements = self.elements(family, name, &set)?;
            // A hash table gives them in any order.
            elements.sort();
            elements.iter().flatten().for_each(|part| digest.add(part));
        }
        image.digest = digest.finish();
        Ok(Some(image))
    }

    fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<[Vec<u8>; 4]>, NetlinkError> {
        let lists = self.dump(MSG_GETSETELEM, family, |w| {
            w.text(1, table);
            w.text(2, set);
        })?;
        let mut elements = Vec::new();
        for list in &lists {
            for (_, element) in Attributes(Attributes(list).find(ELEMENT_LIST).unwrap_or(&[])) {
                elements.push(ELEMENT.map(|kind| owned(Attributes(element).find(kind))));
            }
        }
        Ok(elements)
    }

    /// Attributes of every object. Whether others changed something meanwhile is found by reading again.
    fn dump(&mut self, message: u16, family: Family, body: impl Fn(&mut Writer)) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let mut all = Vec::new();
        let each = |attributes: &[u8]| all.push(attributes.to_vec());
        match self.netlink.dump(SUBSYS | message, family as u8, body, each) {
            Ok(()) | Err(NetlinkError::Interrupted) => Ok(all),
            Err(error) => Err(error),
        }
    }
}

/// The digest, of parts that cannot run into each other.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

fn digest_expressions(digest: &mut Parts, expressions: &[u8]) {
    for (_, expression) in Attributes(expressions) {
        let expression = Attributes(expression);
        let name = expression.find(EXPRESSION_NAME).unwrap_or(&[]);
        digest.add(name);
        let data = if name == COUNTING { &[] } else { expression.find(EXPRESSION_DATA).unwrap_or(&[]) };
        digest.add(data);
    }
    // The end of a rule, which no expression's name is.
    digest.add(&[]);
}

fn owned(value: Option<&[u8]>) -> Vec<u8> {
    value.unwrap_or(&[]).to_vec()
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8_lossy(value.unwrap_or(&[])).trim_end_matches('\0').to_owned()
}

/// The comment in user data: entries of kind, length, value; kind 0 is the comment, for tables, chains and rules alike.
fn comment(userdata: Option<&[u8]>) -> Option<String> {
    let mut rest = userdata?;
    while let [kind, length, behind @ ..] = rest {
        let value = behind.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(Some(value)));
        }
        rest = behind.get(usize::from(*length)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_among_other_user_data() {
        assert_eq!(comment(None), None);
        assert_eq!(comment(Some(&[])), None);
        assert_eq!(comment(Some(&[0, 3, b'h', b'i', 0])), Some("hi".into()));
        assert_eq!(comment(Some(&[1, 1, 9, 0, 3, b'h', b'i', 0])), Some("hi".into()));
        assert_eq!(comment(Some(&[0, 9, b'h'])), None, "a length beyond the end is no comment");
    }

    #[test]
    fn counters_do_not_change_the_digest_and_all_else_does() {
        let rule = |name: &str, data: &[u8]| {
            let mut writer = Writer::default();
            writer.nest(1, |w| {
                w.text(EXPRESSION_NAME, name);
                w.attr(EXPRESSION_DATA, data);
            });
            let mut parts = Parts::default();
            digest_expressions(&mut parts, writer.as_bytes());
            parts.finish()
        };
        assert_eq!(rule("counter", &[1; 8]), rule("counter", &[2; 8]));
        assert_ne!(rule("cmp", &[1; 8]), rule("cmp", &[2; 8]));
        assert_ne!(rule("cmp", &[1; 8]), rule("meta", &[1; 8]));
    }
}
