use std::path::PathBuf;
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) secure: bool,
    pub(crate) host: String,
    pub(crate) zone: Option<String>,
    pub(crate) port: u16,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) unix: Option<PathBuf>,
}
impl Place {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|e| e.to_string())?;
        let host = url.host_str().ok_or("the url has no host")?.to_owned();
        let port = url.port_or_known_default().ok_or("the url has no port")?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        Ok(Self {
            secure: url.scheme() == "wss",
            host: host.trim_matches(['[', ']']).to_owned(),
            zone: None,
            port,
            authority,
            path,
            credentials: (!url.username().is_empty()).then(|| {
                (
                    url.username().into(),
                    url.password().unwrap_or_default().into(),
                )
            }),
            unix: None,
        })
    }
    pub(crate) fn join(&self, location: &str) -> Result<Self, String> {
        Self::parse(location)
    }
}

impl Place {
    pub(crate) fn literal(&self) -> Option<std::net::IpAddr> {
        self.host.parse().ok()
    }
}
