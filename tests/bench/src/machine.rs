//! The machine and the versions of a run.

use std::fs;
use std::process::Command;

use rustix::system::uname;

/// Names and values for the head of a report.
pub fn facts() -> Vec<(&'static str, String)> {
    let system = uname();
    let kernel = format!(
        "{} {}",
        system.release().to_string_lossy(),
        system.machine().to_string_lossy()
    );
    let mut facts = vec![
        ("date", first_line_of("date", &["-u", "+%F"])),
        ("kernel", kernel),
        ("processor", processor()),
        ("compiler", first_line_of("rustc", &["--version"])),
        ("bpf-pin", env!("CARGO_PKG_VERSION").into()),
        ("aya", locked("aya")),
    ];
    if cfg!(feature = "libbpf-rs") {
        facts.push(("libbpf-rs", locked("libbpf-rs")));
        facts.push(("libbpf", locked("libbpf-sys")));
    }
    let bpftool = first_line_of("bpftool", &["version"]);
    facts.push(("bpftool", bpftool.trim_start_matches("bpftool v").into()));
    facts
}

/// The load averages of one, five and fifteen minutes, which show other load.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<_> = text.split_whitespace().take(3).collect();
    averages.join(" ")
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = text.lines().filter(|line| line.starts_with("model name"));
    let model = models
        .clone()
        .next()
        .and_then(|line| line.split(": ").nth(1));
    let model = model.unwrap_or(std::env::consts::ARCH);
    format!("{} × {model}", models.count().max(1))
}

/// The first line of a program's output.
fn first_line_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or("not installed").trim().into()
}

/// The version of a crate in the build.
pub fn locked(name: &str) -> String {
    const LOCK: &str = include_str!("../../../Cargo.lock");
    let mut packages = LOCK.split("[[package]]").map(str::trim_start);
    let head = format!("name = \"{name}\"\nversion = \"");
    let version =
        packages.find_map(|package| package.strip_prefix(head.as_str())?.split('"').next());
    version.unwrap_or("unknown").into()
}
