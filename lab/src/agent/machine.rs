//! What a machine with a kubelet has of its own beyond what each node has.
//!
//! Its own view of processes and of /sys, the propagation of mounts that container runtimes
//! count on, and settings of the kernel that look as kubelet wants them: those are the whole
//! machine's, so kubelet must find nothing to change.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::Error;
use crate::sandbox::{failed, make_dirs, mount_new};

/// What kubelet sets where it is not so (its option `protectKernelDefaults`).
const TUNABLES: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];
/// What a machine must not see of the one that it runs on, and has for itself.
const HIDDEN: &[&str] = &["/etc/cni"];

/// Makes a node, whose process this is, a machine.
pub(super) fn furnish(dir: &Path) -> Result<(), Error> {
    mount_new("proc", Path::new("/proc"))?;
    for path in HIDDEN {
        let own = dir.join(path.trim_start_matches('/').replace('/', "-"));
        make_dirs(&own)?;
        make_dirs(Path::new(path))?;
        bind(&own, Path::new(path))?;
    }
    make_dirs(Path::new(super::CONFIG_DIR))?;
    pretend_tunables(dir)?;
    own_sys(dir)?;
    // Mounts of a volume must show in containers, and those of containers here.
    let flags = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed("share mounts"))
}

fn bind(from: &Path, to: &Path) -> Result<(), Error> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .map_err(|error| Error::program("mount", format!("{}: {error}", to.display())))
}

fn pretend_tunables(dir: &Path) -> Result<(), Error> {
    let dir = dir.join("tunables");
    make_dirs(&dir)?;
    for (name, value) in TUNABLES {
        let file = dir.join(name.replace('/', "."));
        std::fs::write(&file, format!("{value}\n")).map_err(Error::file(&file))?;
        bind(&file, &Path::new("/proc/sys").join(name))?;
    }
    Ok(())
}

/// Mounts a /sys that shows this machine's interfaces, with the control groups where they were.
fn own_sys(dir: &Path) -> Result<(), Error> {
    let sys = dir.join("sys");
    make_dirs(&sys)?;
    mount_new("sysfs", &sys)?;
    bind(Path::new("/sys/fs/cgroup"), &sys.join("fs/cgroup"))?;
    mount_new("bpf", &sys.join("fs/bpf"))?;
    mount(Some(&sys), "/sys", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(failed("move /sys"))
}
