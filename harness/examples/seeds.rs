//! Writes the seeds that are made into their folders.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (target, name, octets) in staunch_harness::seeds::made() {
        std::fs::create_dir_all(folder.join(target))?;
        std::fs::write(folder.join(target).join(name), octets)?;
    }
    Ok(())
}
