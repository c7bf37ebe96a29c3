//! Which images there are and what each holds.

use super::Image;
use super::rootfs::Rootfs;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

const NGINX_CONF: &str = include_str!("catalogue/nginx.conf");
const WEB_START: &str = include_str!("catalogue/web.sh");
const API_HITS: &str = include_str!("catalogue/hits.sh");
const API_START: &str = include_str!("catalogue/api.sh");

pub fn images() -> anyhow::Result<Vec<Image>> {
    Ok(vec![busybox()?, pause()?, web("1")?, web("2")?, api("1")?, api("2")?, redis()?])
}

/// A shell with the usual commands, at the root of every image here.
fn shell() -> anyhow::Result<Rootfs> {
    let mut files = Rootfs::default();
    files.busybox()?;
    files.text("/etc/passwd", PASSWD, 0o644);
    files.text("/etc/group", GROUP, 0o644);
    files.dir("/root", 0o700);
    files.dir("/tmp", 0o1777);
    files.dir("/var/log", 0o755);
    Ok(files)
}

fn busybox() -> anyhow::Result<Image> {
    Ok(Image {
        name: "busybox",
        tag: "1",
        files: shell()?,
        entrypoint: &[],
        command: &["sh"],
        ports: &[],
        stop_signal: None,
    })
}

/// Does nothing for as long as its pod lives.
fn pause() -> anyhow::Result<Image> {
    Ok(Image { name: "pause", entrypoint: &["sleep", "2147483647"], command: &[], ..busybox()? })
}

/// nginx: says its version and its pod's name at `/`, hands `/api/hits` on to the Service `api`.
fn web(tag: &'static str) -> anyhow::Result<Image> {
    let mut files = shell()?;
    files.program("nginx")?;
    files.host_file("/etc/nginx/mime.types")?;
    files.text("/etc/nginx/nginx.conf", &NGINX_CONF.replace("VERSION", tag), 0o644);
    files.text("/bin/web", WEB_START, 0o755);
    files.dir("/run", 0o755);
    files.dir("/var/lib/nginx", 0o755);
    files.dir("/var/log/nginx", 0o755);
    Ok(Image {
        name: "web",
        tag,
        files,
        entrypoint: &["/bin/web"],
        command: &[],
        ports: &["80/tcp"],
        // nginx's own word for finishing what it has begun.
        stop_signal: Some("SIGQUIT"),
    })
}

/// busybox httpd with one CGI program that counts its calls in redis.
fn api(tag: &'static str) -> anyhow::Result<Image> {
    let mut files = shell()?;
    files.text("/srv/cgi-bin/hits", &API_HITS.replace("VERSION", tag), 0o755);
    files.text("/srv/index.html", "ready\n", 0o644);
    files.text("/bin/api", API_START, 0o755);
    Ok(Image {
        name: "api",
        tag,
        files,
        entrypoint: &["/bin/api"],
        command: &[],
        ports: &["8080/tcp"],
        stop_signal: None,
    })
}

fn redis() -> anyhow::Result<Image> {
    let mut files = shell()?;
    files.program("redis-server")?;
    files.program("redis-cli")?;
    files.dir("/data", 0o777);
    Ok(Image {
        name: "redis",
        tag: "1",
        files,
        entrypoint: &["/usr/bin/redis-server", "--dir", "/data", "--save", "", "--protected-mode", "no"],
        command: &[],
        ports: &["6379/tcp"],
        stop_signal: None,
    })
}
