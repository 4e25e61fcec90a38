//! What changes the kernel: applying a plan, removing it. Reading what stands.

use super::flows::must_end;
use super::plan::{Lead, Plan};
use super::script::{Script, is_ours, script};
use super::standing::{SEAL, Standing, judge, seal};
use super::tool::Nft;
use super::{Error, plan};
use crate::enforce::{Family, Images, Ruleset, end_flows, has_interface, interface_addresses};

/// What `apply` has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Whether anything had to change.
    pub changed: bool,
    /// Flows that are no longer permitted and were ended.
    pub ended: u64,
    /// What stands now.
    pub standing: Standing,
}

/// What stands in the calling thread's network namespace under this table name: by itself, or against a plan.
///
/// Read over netlink, without the `nft` tool. It needs `CAP_NET_ADMIN` all the same: the kernel shows tables to nobody
/// else, whatever other capabilities they hold. A process without it asks one that has it.
///
/// # Errors
///
/// [`Error::Privilege`] without the capability, [`Error::Read`] where the kernel does not answer.
pub fn standing(table: &str, plan: Option<&Plan>) -> Result<Standing, Error> {
    Ok(judge(table, &images(table)?, plan.map(script).as_ref()))
}

/// Makes the plan stand in the calling thread's network namespace, then ends the flows that it no longer permits. Tables
/// are replaced in one transaction, and left as they are where nothing differs.
///
/// # Errors
///
/// [`Error`]. Up to [`Error::Refused`] nothing was changed; with [`Error::Flows`] and [`Error::Unsealed`] the rules stand.
pub fn apply(plan: &Plan) -> Result<Applied, Error> {
    let script = script(plan);
    let before = images(plan.table())?;
    refuse_foreign(plan.table(), &before)?;
    let mut standing = judge(plan.table(), &before, Some(&script));
    let changed = !standing.stands;
    if changed {
        let nft = Nft::find()?;
        nft.run(&(removal(plan.table(), stale(&before, &script)) + &script.text))?;
        let sealed = images(plan.table()).and_then(|after| nft.run(&sealing(plan.table(), &after)));
        sealed.map_err(|error| Error::Unsealed(error.to_string()))?;
        standing = judge(plan.table(), &images(plan.table())?, Some(&script));
        if !standing.stands {
            return Err(Error::Unsealed(standing.problems.join("; ")));
        }
    }
    // Without a change too: an earlier run may have come no further than here.
    let ended = end_flows(|flow, place| must_end(plan, flow, place)).map_err(Error::Flows)?;
    Ok(Applied { changed, ended, standing })
}

/// Removes our tables of this name from the calling thread's network namespace; gives which there were.
///
/// # Errors
///
/// [`Error`]; nothing was removed.
pub fn remove(table: &str) -> Result<Vec<Family>, Error> {
    plan::check_table(table).map_err(Error::Plan)?;
    let images = images(table)?;
    refuse_foreign(table, &images)?;
    let families: Vec<Family> = images.into_keys().collect();
    if !families.is_empty() {
        Nft::find()?.run(&removal(table, families.iter().copied()))?;
    }
    Ok(families)
}

/// What of this host does not fit the plan now, and may be meant so: interfaces that are not there, interfaces that
/// questions cannot be led to.
pub fn hints(plan: &Plan) -> Vec<String> {
    let names = plan.sandboxes().iter().map(|s| &s.name).chain(plan.ports().iter().map(|port| &port.name));
    let absent = names
        .filter(|name| !name.is_pattern() && !has_interface(name.as_str()))
        .map(|name| format!("there is no interface {name} here now; it is covered when it comes"));
    let addresses = interface_addresses().unwrap_or_default();
    let there = plan.sandboxes().iter().map(|s| &s.name).filter(|name| has_interface(name.as_str()));
    let led = matches!(plan.lead(false), Some(Lead::Port(_)));
    let bare = there.filter(|name| {
        led && !addresses.iter().any(|(interface, address)| name.as_str() == interface && address.is_ipv4())
    });
    let bare = bare.map(|name| {
        format!(
            "{name} has no IPv4 address of this host, so questions over IPv4 vanish instead of being led to it: give \
             --resolver ADDRESS:PORT, or give {name} an address"
        )
    });
    absent.chain(bare).collect()
}

fn images(table: &str) -> Result<Images, Error> {
    let mut ruleset = Ruleset::open().map_err(Error::Read)?;
    ruleset.tables(table, SEAL).map_err(|error| match error {
        crate::enforce::Error::Kernel { ref source, .. } if source.raw_os_error() == Some(libc::EPERM) => {
            Error::Privilege
        }
        other => Error::Read(other),
    })
}

fn refuse_foreign(table: &str, images: &Images) -> Result<(), Error> {
    match images.iter().find(|(_, image)| !is_ours(image.comment.as_deref())) {
        Some((family, _)) => Err(Error::Foreign { family: family.as_str(), table: table.to_owned() }),
        None => Ok(()),
    }
}

/// Tables of an earlier plan that this one does not replace.
fn stale(images: &Images, script: &Script) -> impl Iterator<Item = Family> {
    images.keys().copied().filter(|family| script.tables.iter().all(|(planned, _)| planned != family))
}

fn removal(table: &str, families: impl Iterator<Item = Family>) -> String {
    families.map(|family| format!("delete table {} {table}\n", family.as_str())).collect()
}

fn sealing(table: &str, images: &Images) -> String {
    let seals = images.keys().filter_map(|family| Some((family.as_str(), seal(images, *family)?)));
    seals.map(|(family, seal)| format!("add chain {family} {table} {SEAL} {{ comment \"{seal}\"; }}\n")).collect()
}
