//! A second kernel, Debian's own, in a virtual machine: for what this machine's kernel may lack.
//!
//! IPIP, WireGuard and VRF are modules of Linux that small kernels of containers and CI machines
//! leave out, and nobody can load them there. `virtme-ng` boots the kernel of a Debian package
//! under QEMU with this machine's root file system, read-only, so the programs and tools in it
//! are those that run outside. Hardware virtualisation is left alone: a nested one hangs on
//! some machines, so code inside is ten to thirty times slower, and only what needs that kernel
//! runs there, in one boot.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::House;
use crate::command::{Failure, Run, step};
use crate::setup::{Tool, apt, install};

/// What booting takes.
const TOOLS: &[Tool] = &[
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        purpose: "the machine that the second kernel runs on",
    },
    Tool { program: "depmod", package: "kmod", purpose: "loads the second kernel's modules" },
    Tool { program: "strip", package: "binutils", purpose: "makes programs small to load" },
    Tool { program: "/usr/bin/python3", package: "python3", purpose: "runs virtme-ng" },
    Tool {
        program: "/usr/lib/python3.11/ensurepip/__init__.py",
        package: "python3-venv",
        purpose: "keeps virtme-ng apart from this machine's Python",
    },
    Tool { program: "wg", package: "wireguard-tools", purpose: "reads back what ours wrote" },
    Tool { program: "tcpdump", package: "tcpdump", purpose: "sees what goes over the fabric" },
];

/// The kernel's packages: one of a series that Debian keeps for years.
const PACKAGES: &str = "linux-image-6.1.0-";
/// The only other one of the series that is for any PC.
const SUFFIX: &str = "-amd64";
/// The file that says, once it is not empty, that the machine runs what it is to run.
const BOOTED: &str = "booted";
/// What boots it.
const VIRTME: &str = "virtme-ng==1.42";

/// The programs that run inside.
const PROGRAMS: &[&str] =
    &["lab", "calico", "calico-node", "calico-datastore", "calicoctl", "calico-kube-controllers"];

/// The scenarios that need a whole Kubernetes inside: its program, and room for images.
const OF_KUBELETS: &[&str] = &["the-manifest-works-as-it-is"];
/// Kubernetes' program in `target/lab`.
const KUBERNETES: &str = "control-plane";

/// Those of a benchmark, as they are released.
const RELEASED: &[&str] = &["calico", "calico-node", "calico-datastore"];

/// Variables that are the same inside: how much of something a scenario is to do, and how long.
const PASSED_ON: &[&str] =
    &["WIREGUARD_DELETIONS", "WIREGUARD_RESTARTS", "TENANTS_IN_FULL", SCENARIO_SECONDS];
/// The variable that says how many seconds each scenario may take; the machine is left that much
/// time, too.
const SCENARIO_SECONDS: &str = "SCENARIO_SECONDS";
/// How long the whole may take, boot included, if nobody says otherwise.
const WITHIN: Duration = Duration::from_secs(900);
/// How long a boot may take on a busy machine: emulated processors hang now and then while the
/// kernel sets up its clocks, for good, before anything of ours has run.
const BOOT_WITHIN: Duration = Duration::from_secs(240);
/// How often it is booted, at most.
const BOOTS: usize = 3;
/// How often is looked for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Installs what booting takes: tools, the kernel without installing it, and virtme-ng.
pub(crate) fn set_up(house: &House) -> Result<(), Failure> {
    install(TOOLS)?;
    let dir = Dir::of(house);
    std::fs::create_dir_all(&dir.0).map_err(|source| dir.failed(source))?;
    if dir.image().is_none() {
        fetch_kernel(&dir)?;
    }
    if !dir.vng().exists() {
        step("installing virtme-ng into target/");
        Run::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(dir.venv()).run()?;
        let pip = Run::new(dir.venv().join("bin/pip")).args(["install", "--quiet", VIRTME]);
        pip.run_quietly("installing virtme-ng")?;
    }
    Ok(())
}

/// Boots the second kernel, and runs scenarios there: these, or all that are for it.
pub(crate) fn scenarios(house: &House, names: &[String]) -> Result<(), Failure> {
    step("scenarios on the second kernel (boots in half a minute)");
    let programs: Vec<PathBuf> = PROGRAMS.iter().map(|name| house.programs().join(name)).collect();
    let command = ["lab", "scenarios", "--kernel", "second"].map(str::to_owned);
    let extent = if names.iter().any(|name| OF_KUBELETS.contains(&name.as_str())) {
        Extent::Kubernetes
    } else {
        Extent::Programs
    };
    run(house, &programs, &[&command, names].concat(), extent)
}

/// What a machine has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Extent {
    /// Our programs.
    Programs,
    /// Kubernetes besides: read over the shared root it would begin with minutes of reading.
    Kubernetes,
}

impl Extent {
    /// Returns how much memory that takes; all that is written is in it.
    const fn memory(self) -> &'static str {
        match self {
            Self::Programs => "3G",
            Self::Kubernetes => "8G",
        }
    }
}

/// Boots the second kernel, and measures there what the first one cannot do.
pub(crate) fn benchmark(house: &House) -> Result<(), Failure> {
    step("the tunnels that this kernel may lack, on the second kernel (boots in half a minute)");
    let released = RELEASED.iter().map(|name| house.release().join(name));
    let programs: Vec<PathBuf> = released.chain([house.benchmarks()]).collect();
    let command = ["benchmarks", "overlay", "--all-tunnels"].map(str::to_owned);
    run(house, &programs, &command, Extent::Programs)
}

/// Boots it and runs a command there, one of `programs` with its arguments.
///
/// What that says is printed as it comes; the machine's own log is kept if something fails.
fn run(
    house: &House,
    programs: &[PathBuf],
    command: &[String],
    extent: Extent,
) -> Result<(), Failure> {
    let dir = Dir::of(house);
    let within = within(std::env::var(SCENARIO_SECONDS).ok().as_deref())?;
    stage(programs, &dir)?;
    if extent == Extent::Kubernetes {
        let from = house.target.join("lab").join(KUBERNETES);
        std::fs::copy(&from, dir.programs().join(KUBERNETES))
            .map_err(|source| Failure::File { path: from, source })?;
    }
    let log = dir.0.join("console.log");
    let mut lab = None;
    for boot in 1..=BOOTS {
        let console = File::create(&log).map_err(|source| dir.failed(source))?;
        let child = dir.boot(house, command, within, extent)?.start(console)?;
        lab = follow(child, &dir)?;
        if lab.is_some() {
            break;
        }
        step(&format!("boot {boot} of {BOOTS} hung for {} s", BOOT_WITHIN.as_secs()));
    }
    let lab = lab.ok_or_else(|| Failure::Machine("the second kernel does not boot".to_owned()))?;
    let code = std::fs::read_to_string(dir.share().join("code")).unwrap_or_default();
    if code.trim() == "0" {
        return Ok(());
    }
    let what = match code.trim() {
        "" => format!("did not come to its end within {} s ({lab})", within.as_secs()),
        code => format!("failed with code {code}"),
    };
    Err(Failure::Machine(format!(
        "what ran on the second kernel {what}; what that kernel said is in {}, what scenarios said \
         in {}",
        log.display(),
        dir.logs().display()
    )))
}

/// Returns how long the machine may run.
fn within(scenario_seconds: Option<&str>) -> Result<Duration, Failure> {
    let Some(text) = scenario_seconds else { return Ok(WITHIN) };
    let seconds = text.parse().map_err(|_| {
        Failure::Machine(format!("{SCENARIO_SECONDS}: `{text}` is no number of seconds"))
    })?;
    Ok(WITHIN.max(BOOT_WITHIN.saturating_add(Duration::from_secs(seconds))))
}

/// Fetches the newest kernel of the series and unpacks it: installing it would make this
/// machine want to boot it.
fn fetch_kernel(dir: &Dir) -> Result<(), Failure> {
    apt(["update"]).run_quietly("reading the list of packages")?;
    let names = Run::new("apt-cache").args(["pkgnames", PACKAGES]).output()?;
    let package = newest(&names).ok_or_else(|| {
        Failure::Machine(format!(
            "no package {PACKAGES}NN{SUFFIX} is known here: add Debian 12's main archive to \
             apt's sources"
        ))
    })?;
    step(&format!("fetching {package} (70 MB) and unpacking it into target/"));
    apt(["download", &package]).dir(&dir.0).run_quietly("fetching the kernel")?;
    let entries = std::fs::read_dir(&dir.0).map_err(|source| dir.failed(source))?;
    let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let is_it = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let path = paths
        .find(is_it)
        .ok_or_else(|| Failure::Machine(format!("apt-get download {package} left no file")))?;
    Run::new("dpkg-deb").arg("--extract").arg(&path).arg(dir.unpacking()).run()?;
    std::fs::remove_file(&path).map_err(|source| dir.failed(source))?;
    // The name stands for a whole kernel only.
    std::fs::rename(dir.unpacking(), dir.kernel()).map_err(|source| dir.failed(source))
}

/// Returns the newest kernel among names of packages.
fn newest(names: &str) -> Option<String> {
    let number = |name: &str| {
        let number = name.strip_prefix(PACKAGES)?.strip_suffix(SUFFIX)?;
        number.parse::<u32>().ok()
    };
    let newest = names.lines().filter_map(number).max()?;
    Some(format!("{PACKAGES}{newest}{SUFFIX}"))
}

/// Puts small copies of our programs where the machine loads them from.
fn stage(programs: &[PathBuf], dir: &Dir) -> Result<(), Failure> {
    let copies = dir.programs();
    // All that is there takes room in the machine's memory.
    if copies.exists() {
        std::fs::remove_dir_all(&copies).map_err(|source| dir.failed(source))?;
    }
    std::fs::create_dir_all(&copies).map_err(|source| dir.failed(source))?;
    for program in programs {
        let copy = copies.join(program.file_name().unwrap_or_default());
        Run::new("strip").arg("-o").arg(copy).arg(program).run()?;
    }
    let (share, logs) = (dir.share(), dir.logs());
    if logs.exists() {
        std::fs::remove_dir_all(&logs).map_err(|source| dir.failed(source))?;
    }
    std::fs::create_dir_all(&logs).map_err(|source| dir.failed(source))?;
    for name in ["output", "code", BOOTED] {
        File::create(share.join(name)).map_err(|source| dir.failed(source))?;
    }
    Ok(())
}

/// Prints what the lab says until `child` ends, and returns how that ended; nothing if the machine
/// has hung before the lab began.
fn follow(mut child: Child, dir: &Dir) -> Result<Option<String>, Failure> {
    let path = dir.share().join("output");
    let booted = dir.share().join(BOOTED);
    let failed = |source| Failure::File { path: path.clone(), source };
    let has_booted = || std::fs::metadata(&booted).is_ok_and(|file| file.len() > 0);
    let since = Instant::now();
    let mut at = 0_u64;
    let mut print = || {
        let mut file = File::open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut news = Vec::new();
        file.read_to_end(&mut news).map_err(failed)?;
        at = at.saturating_add(u64::try_from(news.len()).unwrap_or_default());
        std::io::stdout().write_all(&news).map_err(failed)
    };
    loop {
        let status = child.try_wait().map_err(failed)?;
        print()?;
        if let Some(status) = status {
            return Ok(Some(status.to_string()));
        }
        if since.elapsed() > BOOT_WITHIN && !has_booted() {
            // It is timeout(1), which passes that on to all that it has started.
            Run::new("kill").arg(child.id().to_string()).run()?;
            child.wait().map_err(failed)?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Where all of it is.
struct Dir(PathBuf);

impl Dir {
    fn of(house: &House) -> Self {
        Self(house.target.join("second-kernel"))
    }

    fn venv(&self) -> PathBuf {
        self.0.join("venv")
    }

    /// What is loaded into the machine.
    fn programs(&self) -> PathBuf {
        self.0.join("programs")
    }

    fn vng(&self) -> PathBuf {
        self.venv().join("bin/vng")
    }

    fn kernel(&self) -> PathBuf {
        self.0.join("kernel")
    }

    fn unpacking(&self) -> PathBuf {
        self.0.join("unpacking")
    }

    /// The only directory of this machine that is written from inside.
    fn share(&self) -> PathBuf {
        self.0.join("share")
    }

    /// Where scenarios write what they say, while they run.
    fn logs(&self) -> PathBuf {
        self.share().join("logs")
    }

    /// Returns the kernel's image, if it is there.
    fn image(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.kernel().join("boot")).ok()?;
        let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        paths.find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
    }

    /// Returns the run of the machine, which ends with the lab, with its time, or with us.
    fn boot(
        &self,
        house: &House,
        command: &[String],
        within: Duration,
        extent: Extent,
    ) -> Result<Run, Failure> {
        let image = self.image().ok_or_else(|| {
            Failure::Machine(format!("there is no kernel in {}", self.kernel().display()))
        })?;
        let script = self.share().join("script");
        std::fs::write(&script, self.script(house, command))
            .map_err(|source| self.failed(source))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = [self.venv().join("bin")].into_iter().chain(std::env::split_paths(&path));
        let path = std::env::join_paths(dirs).unwrap_or_default();
        let run = Run::new("setpriv").args(["--pdeathsig", "TERM"]);
        let within = within.as_secs().to_string();
        let run = run.args(["timeout", "--kill-after=10", &within]).arg(self.vng());
        let run = run.args(["--verbose", "--disable-kvm", "--force-9p", "--run"]).arg(image);
        let run = run.args(["--user", "root", "--cpus", "2", "--memory", extent.memory()]);
        let run = run.arg("--rwdir");
        let run = run.arg(self.share()).args(["--exec", &format!("sh {}", script.display())]);
        Ok(run.dir(&house.root).env("PATH", path))
    }

    /// Returns what the machine runs. Its root is read-only: all that is written goes into memory.
    fn script(&self, house: &House, command: &[String]) -> String {
        let (dir, share) = (self.0.display(), self.share());
        let words: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
        let set = PASSED_ON.iter().filter_map(|name| {
            let value = std::env::var(name).ok()?;
            Some(format!("export {name}='{}'\n", value.replace('\'', "")))
        });
        let set: Vec<String> = set.collect();
        format!(
            "echo 1 >{share}/{BOOTED}\n\
             mount -t tmpfs memory /mnt && mkdir /mnt/lab && cp -r {dir}/programs /mnt/programs\n\
             cd {root} && export TMPDIR=/mnt/lab CALICO_BIN_DIR=/mnt/programs\n\
             [ ! -e /mnt/programs/{KUBERNETES} ] || \
             export CALICO_CONTROL_PLANE=/mnt/programs/{KUBERNETES}\n\
             grep -q ' /sys/fs/cgroup ' /proc/mounts || mount -t cgroup2 cgroup /sys/fs/cgroup\n\
             export SCENARIO_LOGS={logs}\n\
             {set}/mnt/programs/{words} >{share}/output 2>&1\n\
             echo $? >{share}/code\n",
            root = house.root.display(),
            share = share.display(),
            logs = self.logs().display(),
            set = set.concat(),
            words = words.join(" "),
        )
    }

    fn failed(&self, source: std::io::Error) -> Failure {
        Failure::File { path: self.0.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_scenarios_get_a_machine_for_as_long() {
        assert_eq!(within(None).unwrap(), WITHIN);
        assert_eq!(within(Some("60")).unwrap(), WITHIN);
        assert_eq!(within(Some("3600")).unwrap(), Duration::from_secs(3840));
        assert!(within(Some("1h")).is_err());
    }

    #[test]
    fn the_newest_kernel_is_that_of_the_highest_number() {
        let names = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-56-amd64\n\
                     linux-image-6.1.0-57-cloud-amd64\nlinux-image-6.1.0-58-amd64-dbg\n\
                     linux-image-6.1.0-10-amd64-unsigned\nlinux-image-6.1.0-55-amd64\n";
        assert_eq!(newest(names).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(newest("linux-image-6.1.0-58-rt-amd64\n"), None);
    }
}
