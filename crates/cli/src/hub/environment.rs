//! What the environment says of the hub, by the names and rules of `huggingface_hub`.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

/// The hub that everybody means.
const ENDPOINT: &str = "https://huggingface.co";

/// As in `huggingface_hub`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the hub is, who asks it, and where what it sends is kept.
pub(super) struct Environment {
    /// `HF_ENDPOINT`: scheme, host and perhaps a path, without a slash at the end.
    pub(super) endpoint: String,
    /// `HF_TOKEN`, or what `hf auth login` left in `HF_HOME`.
    pub(super) token: Option<String>,
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub(super) cache: PathBuf,
    /// `HF_HUB_OFFLINE`.
    pub(super) offline: bool,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: how long a server may say nothing.
    pub(super) timeout: Duration,
    pub(super) no_proxy: NoProxy,
}

/// `NO_PROXY`: the hosts that are asked without a proxy, as curl reads it. ureq knows the proxies alone.
#[derive(Debug, Clone, Default)]
pub(super) struct NoProxy(Vec<String>);

impl NoProxy {
    #[cfg(test)]
    pub(super) fn of(hosts: &[&str]) -> Self {
        Self(hosts.iter().map(|host| (*host).to_owned()).collect())
    }

    fn read(var: &dyn Fn(&str) -> Option<String>) -> Self {
        let list = var("no_proxy").or_else(|| var("NO_PROXY"));
        let list = list.unwrap_or_default().to_ascii_lowercase();
        let hosts = list
            .split([',', ' '])
            .map(|host| host.trim_start_matches('.'));
        Self(
            hosts
                .filter(|host| !host.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    /// Whether the host of an `origin`, such as `https://mirror:8080`, is one of them or in a domain of theirs.
    pub(super) fn covers(&self, origin: &str) -> bool {
        let (_, host) = origin.split_once("://").unwrap_or(("", origin));
        let port = host.rsplit_once(':');
        let host = port.map_or(host, |(host, _)| host).to_ascii_lowercase();
        self.0.iter().any(|known| {
            let rest = host.strip_suffix(known.as_str());
            known == "*" || rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

impl Environment {
    /// The environment of this process.
    pub(super) fn read() -> Result<Self> {
        Self::of(&|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// An environment whose variables `var` knows.
    pub(super) fn of(var: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let home = home(var);
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            bail!("HF_ENDPOINT is {endpoint:?}, expected an address that begins with https://");
        }
        let cache = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
        let cache = cache.into_iter().find_map(var);
        let switched_on = |name| var(name).is_some_and(|value| is_true(&value));
        Ok(Self {
            endpoint,
            token: token(var, &home)?,
            cache: cache.map_or_else(|| home.join("hub"), |path| expanded(&path, var)),
            offline: switched_on("HF_HUB_OFFLINE") || switched_on("TRANSFORMERS_OFFLINE"),
            timeout: timeout(var)?,
            no_proxy: NoProxy::read(var),
        })
    }
}

/// `HF_HOME`.
fn home(var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(home) = var("HF_HOME") {
        return expanded(&home, var);
    }
    let caches = match var("XDG_CACHE_HOME") {
        Some(caches) => expanded(&caches, var),
        None => user_home(var).join(".cache"),
    };
    caches.join("huggingface")
}

fn user_home(var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let known = var("HOME").map(PathBuf::from);
    known.or_else(env::home_dir).unwrap_or_default()
}

/// A path with the user's folder in place of `~`.
fn expanded(path: &str, var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => user_home(var),
        Some(rest) if rest.starts_with(['/', '\\']) => user_home(var).join(&rest[1..]),
        _ => PathBuf::from(path),
    }
}

/// The user's token, and nothing that cannot stand in a header.
fn token(var: &dyn Fn(&str) -> Option<String>, home: &Path) -> Result<Option<String>> {
    let plain = |text: String, place: &str| match text.trim() {
        "" => Ok(None),
        token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(token.to_owned())),
        _ => bail!("{place}: it is no token; a token is one word of letters, digits and signs"),
    };
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(token) = var(name)
            && let Some(token) = plain(token, name)?
        {
            return Ok(Some(token));
        }
    }
    if var("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
        return Ok(None);
    }
    let path = match var("HF_TOKEN_PATH") {
        Some(path) => expanded(&path, var),
        None => home.join("token"),
    };
    match path.is_file() {
        true => plain(
            burn_peft_files::read_to_string(&path)?,
            &path.display().to_string(),
        ),
        false => Ok(None),
    }
}

fn timeout(var: &dyn Fn(&str) -> Option<String>) -> Result<Duration> {
    const NAME: &str = "HF_HUB_DOWNLOAD_TIMEOUT";
    let Some(text) = var(NAME) else {
        return Ok(TIMEOUT);
    };
    match text.trim().parse() {
        Ok(0) => Ok(TIMEOUT),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => bail!("{NAME} is {text:?}, expected a whole number of seconds"),
    }
}

/// Switches as `huggingface_hub` reads them.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::tempdir;

    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Environment> {
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Environment::of(&move |name| {
            let found = variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        for (variables, cache) in [
            (&[("HOME", "/me")][..], "/me/.cache/huggingface/hub"),
            (&[("HOME", "/me"), ("HF_HOME", "~/hf")], "/me/hf/hub"),
            (&[("XDG_CACHE_HOME", "/caches")], "/caches/huggingface/hub"),
            (
                &[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")],
                "/models",
            ),
            (&[("HUGGINGFACE_HUB_CACHE", "/models")], "/models"),
        ] {
            assert_eq!(with(variables).unwrap().cache, Path::new(cache));
        }
    }

    #[test]
    fn the_token_of_the_environment_goes_before_the_one_of_the_login() {
        let home = tempdir().unwrap();
        let hf_home = ("HF_HOME", home.path().to_str().unwrap());
        let token = |more: &[(&str, &str)]| with(&[&[hf_home], more].concat()).map(|e| e.token);
        assert_eq!(token(&[]).unwrap(), None);
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(token(&[]).unwrap().as_deref(), Some("hf_file"));
        let given = token(&[("HF_TOKEN", " hf_env\r\n")]).unwrap();
        assert_eq!(given.as_deref(), Some("hf_env"));
        let implicit = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(token(&[implicit]).unwrap(), None);
        let error = token(&[("HF_TOKEN", "a\nb")]).unwrap_err().to_string();
        assert!(error.starts_with("HF_TOKEN: ") && !error.contains("a\nb"));
    }

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        let hosts = with(&[("NO_PROXY", "127.0.0.1, .Mirror.example,hf.co")])
            .unwrap()
            .no_proxy;
        for direct in [
            "http://127.0.0.1:8080",
            "https://a.mirror.example",
            "https://hf.co",
        ] {
            assert!(hosts.covers(direct), "{direct}");
        }
        for proxied in [
            "https://huggingface.co",
            "https://nothf.co",
            "http://127.0.0.10",
        ] {
            assert!(!hosts.covers(proxied), "{proxied}");
        }
        assert!(
            with(&[("no_proxy", "*")])
                .unwrap()
                .no_proxy
                .covers("https://hf.co")
        );
    }

    #[test]
    fn switches_and_numbers_are_read_as_huggingface_hub_does() {
        let default = with(&[]).unwrap();
        assert_eq!(default.endpoint, "https://huggingface.co");
        assert_eq!((default.offline, default.timeout.as_secs()), (false, 10));
        let mirror = with(&[
            ("HF_ENDPOINT", "http://mirror/hf/"),
            ("HF_HUB_OFFLINE", "true"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "3"),
        ])
        .unwrap();
        assert_eq!(mirror.endpoint, "http://mirror/hf");
        assert_eq!((mirror.offline, mirror.timeout.as_secs()), (true, 3));
        assert!(with(&[("HF_ENDPOINT", "mirror")]).is_err());
        assert!(with(&[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]).is_err());
    }
}
