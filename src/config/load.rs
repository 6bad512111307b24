//! From files to the model: read, follow `include`, merge, read every table, hold the whole against the rules.
//! Nothing stops at the first problem; there is a model only if there is no error.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Config,
    model::ClientCert,
    rules,
    server::{self, ServerTables},
    sources::{self, Defaults, Draft},
    store, upstreams,
};
use crate::{
    document::{self, At, FileId, Place, Problems, Section, Value, Written, nearest},
    event::Name,
    preset::{self, Provider},
    time::{Clock, Wall},
};

/// More than any configuration has; a bound against reading a device or a disk image.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How a configuration is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Whether secrets outside the configuration are read.
    pub secrets: Secrets,
    /// Where `{ env = … }` and `{ credential = … }` look.
    pub environment: Environment,
    /// The time that `expires_at` is compared with, for warnings.
    pub now: Wall,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { secrets: Secrets::Load, environment: Environment::Process, now: Clock::system().wall() }
    }
}

/// Whether secrets outside the configuration are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secrets {
    /// They are, and must be there.
    Load,
    /// Only inline ones are: for checking a configuration where its secrets are not. Such a model must not be
    /// served; its keyrings lack the keys, so nothing would verify.
    Skip,
}

/// Where environment variables are looked up.
#[derive(Clone, Debug)]
pub enum Environment {
    /// Those of this process.
    Process,
    /// These only.
    Fixed(BTreeMap<String, String>),
}

impl Environment {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        match self {
            Self::Process => std::env::var(name).ok(),
            Self::Fixed(variables) => variables.get(name).cloned(),
        }
    }
}

/// What came of a load.
#[derive(Debug)]
pub struct Loaded {
    /// The model, if there are no errors.
    pub config: Option<Config>,
    /// Errors and warnings.
    pub problems: Problems,
    /// What people want to see of each source and the model does not need, by source.
    pub notes: BTreeMap<Name, SourceNote>,
    /// What it was made of.
    pub files: Files,
}

/// The files that a configuration is made of, whether they could be read or not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// The main file first, then those that it includes.
    pub configuration: Vec<PathBuf>,
    /// The patterns of `include`: another file may fit one later.
    pub patterns: Vec<String>,
    /// Secrets, certificates and authorities.
    pub named: Vec<PathBuf>,
}

impl Files {
    /// Adds what the model names and does not hold.
    fn named_by(&mut self, config: &Config) {
        let tls = config.server.listeners.iter().filter_map(|listener| listener.tls.as_deref());
        for tls in tls {
            self.named.extend(tls.certificates.iter().flat_map(|files| [files.cert.clone(), files.key.clone()]));
            self.named.extend(tls.clients.iter().map(|clients| clients.ca.clone()));
        }
        for upstream in config.upstreams.values() {
            let own = upstream.client_cert.iter().flat_map(|own| [own.cert.clone(), own.key.clone()]);
            self.named.extend(upstream.ca.iter().cloned().chain(own));
        }
        for source in config.sources.values() {
            self.named.extend(source.remote_keys.as_ref().and_then(|keys| keys.ca.clone()));
            if let Some(ClientCert::Issuer(authorities)) = &source.client_cert {
                self.named.push(authorities.file.clone());
            }
        }
        self.named.sort_unstable();
        self.named.dedup();
    }
}

/// What is shown of a source beside its model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceNote {
    /// Algorithm and places: `hmac-sha256 in x-ps-signature`.
    pub verification: String,
    /// Its secrets, without their values.
    pub secrets: Vec<SecretNote>,
}

/// A secret without its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretNote {
    /// Its id.
    pub id: Arc<str>,
    /// Where it is from: `file secrets/partssource`.
    pub origin: String,
    /// Not used before.
    pub not_before: Option<Wall>,
    /// Not used from then on.
    pub expires_at: Option<Wall>,
}

/// Loads a configuration file and what it includes.
pub fn load(path: &Path, options: &LoadOptions) -> Loaded {
    let problems = Problems::default();
    let text = read_text(path, CONFIG_BYTES_MAX).map_err(|error| {
        let help = "give the path of the configuration with -c; config.example.toml explains every key";
        problems.error_anywhere(format!("failed to read configuration {}: {error}", path.display()), help);
    });
    let Ok(text) = text else {
        let files = Files { configuration: vec![path.to_owned()], ..Files::default() };
        return Loaded { config: None, problems, notes: BTreeMap::new(), files };
    };
    from_parts(problems, Origin { name: path, text: &text, is_file: true }, &directory_of(path), options)
}

/// Reads a configuration from `text`, as if it stood in a file `name` in the directory `base_dir`.
pub fn from_text(name: &str, text: &str, base_dir: &Path) -> Loaded {
    from_text_with(name, text, base_dir, &LoadOptions::default())
}

/// As [`from_text`], with options.
pub fn from_text_with(name: &str, text: &str, base_dir: &Path, options: &LoadOptions) -> Loaded {
    let origin = Origin { name: Path::new(name), text, is_file: false };
    from_parts(Problems::default(), origin, base_dir, options)
}

#[derive(Clone, Copy)]
struct Origin<'a> {
    name: &'a Path,
    text: &'a str,
    is_file: bool,
}

/// What every reader of a table has at hand.
#[derive(Debug)]
pub(super) struct Reader<'p> {
    pub(super) problems: &'p Problems,
    pub(super) options: &'p LoadOptions,
    /// The directory that paths in a file are relative to.
    bases: BTreeMap<FileId, PathBuf>,
    /// Secrets that still are the example's: an error if a listener is reachable from elsewhere.
    pub(super) change_me: RefCell<Vec<Place>>,
    /// What the files say, and the secrets that were read from elsewhere.
    pub(super) written: RefCell<Written>,
    /// What was read, or would have been.
    pub(super) files: RefCell<Files>,
}

impl Reader<'_> {
    /// A path that is a default, relative to the main file.
    pub(super) fn resolve_main(&self, path: &Path) -> PathBuf {
        self.bases.values().next().map_or_else(|| path.to_owned(), |base| base.join(path))
    }
    /// A path as written at `place`, relative to its file.
    pub(super) fn resolve(&self, place: &Place, path: &Path) -> PathBuf {
        self.bases.get(&place.file).map_or_else(|| path.to_owned(), |base| base.join(path))
    }
}

fn from_parts(problems: Problems, origin: Origin<'_>, base_dir: &Path, options: &LoadOptions) -> Loaded {
    let (config, notes, files) = read_all(&problems, origin, base_dir, options);
    let config = config.filter(|_| problems.errors() == 0);
    Loaded { config, problems, notes, files }
}

fn read_all(
    problems: &Problems,
    origin: Origin<'_>,
    base_dir: &Path,
    options: &LoadOptions,
) -> (Option<Config>, BTreeMap<Name, SourceNote>, Files) {
    let mut reader = Reader {
        problems,
        options,
        bases: BTreeMap::new(),
        change_me: RefCell::default(),
        written: RefCell::default(),
        files: RefCell::default(),
    };
    reader.files.get_mut().configuration.extend(origin.is_file.then(|| origin.name.to_owned()));
    let main = document::parse(problems, origin.name, origin.text);
    reader.bases.insert(main.place().file, base_dir.to_owned());
    let files = with_included(&mut reader, main, origin, base_dir);
    for file in &files {
        reader.written.borrow_mut().add(file);
    }
    let mut tables = merge(problems, files);

    let mut server = server::read(
        &reader,
        ServerTables { server: tables.single("server"), admin: tables.single("admin"), log: tables.single("log") },
    );
    let (store, accept_loss) = store::read_store(&reader, tables.single("store"));
    let (replay, horizons) = store::read_replay(tables.single("replay"));

    let providers = read_providers(problems, tables.providers);
    let mut upstreams: Vec<_> =
        tables.upstreams.into_iter().filter_map(|(name, value)| upstreams::read(&reader, name, value)).collect();
    let public_url = server.server.public_url.clone();
    let defaults = Defaults { limits: &server.limits, horizons, providers: &providers, public_url };
    let mut drafts: Vec<Draft> = Vec::new();
    for (name, value) in tables.sources {
        if let Some(draft) = sources::read(&reader, &defaults, &name, value, &mut upstreams) {
            drafts.push(draft);
        }
    }
    rules::fit_concurrency(&mut upstreams, &drafts, &server.server.limits);
    rules::fit_connections(&mut server, &store, &replay, &drafts, &upstreams);
    if drafts.is_empty() && problems.errors() == 0 {
        problems.error_anywhere(
            "there is no source",
            "add one: [sources.NAME] with provider = \"…\", secrets = [{ file = \"…\" }] and upstream = \"http://…\"",
        );
    }

    let notes = drafts.iter().map(|draft| (draft.name.clone(), draft.note.clone())).collect();
    rules::check(
        &reader,
        &rules::Whole {
            server: &server,
            store: &store,
            accept_loss,
            replay: &replay,
            drafts: &drafts,
            upstreams: &upstreams,
        },
    );
    rules::share_replay_scopes(&mut drafts);
    let config = Config {
        log: std::mem::take(&mut server.log),
        admin: server.admin,
        server: server.server,
        store,
        replay,
        sources: drafts.into_iter().filter_map(|draft| Some((draft.name, Arc::new(draft.source?)))).collect(),
        upstreams: upstreams.into_iter().map(|at| (at.upstream.name.clone(), Arc::new(at.upstream))).collect(),
        written: reader.written.take(),
    };
    reader.files.get_mut().named_by(&config);
    (Some(config), notes, reader.files.take())
}

/// The main file and every included one, in the order they are read.
fn with_included<'p>(
    reader: &mut Reader<'p>,
    mut main: Section<'p>,
    origin: Origin<'_>,
    base_dir: &Path,
) -> Vec<Section<'p>> {
    let problems = reader.problems;
    let mut paths: Vec<PathBuf> = Vec::new();
    for pattern in main.value("include").and_then(Value::list).unwrap_or_default() {
        let place = pattern.place().clone();
        let Some(pattern) = pattern.get::<String>() else { continue };
        let is_glob = pattern.contains(['*', '?', '[']);
        let whole = if Path::new(&pattern).is_absolute() || base_dir.as_os_str().is_empty() {
            pattern.clone()
        } else {
            format!("{}/{pattern}", glob::Pattern::escape(&base_dir.display().to_string()))
        };
        reader.files.borrow_mut().patterns.push(whole.clone());
        let found = match glob::glob(&whole) {
            Ok(found) => found,
            Err(error) => {
                let help = "write a path or a pattern such as \"conf.d/*.toml\"";
                problems.error(&place, format!("`include`: \"{pattern}\" is not a pattern: {}", error.msg), help);
                continue;
            }
        };
        let before = paths.len();
        for path in found.filter_map(Result::ok) {
            let itself = origin.is_file && path.canonicalize().ok() == origin.name.canonicalize().ok();
            if !itself && !paths.contains(&path) {
                reader.files.borrow_mut().configuration.push(path.clone());
                paths.push(path);
            }
        }
        // The paths of one pattern are sorted by glob itself. A pattern may find nothing, a path may not.
        if paths.len() == before && !is_glob {
            problems.error(&place, format!("`include`: there is no file {whole}"), "paths are relative to this file");
        }
    }
    let mut files = vec![main];
    for path in paths {
        match read_text(&path, CONFIG_BYTES_MAX) {
            Ok(text) => {
                let mut section = document::parse(problems, &path, &text);
                reader.bases.insert(section.place().file, directory_of(&path));
                if let Some(value) = section.value("include") {
                    value.error("an included file may not include", "include it from the main file");
                }
                files.push(section);
            }
            Err(error) => problems.error_anywhere(
                format!("failed to read included file {}: {error}", path.display()),
                "make it readable for the user that runs Hookward, or take it out of `include`",
            ),
        }
    }
    files
}

type Named<'p> = Vec<(At<String>, Value<'p>)>;

struct Tables<'p> {
    singles: BTreeMap<&'static str, Section<'p>>,
    sources: Named<'p>,
    upstreams: Named<'p>,
    providers: Named<'p>,
}

impl<'p> Tables<'p> {
    fn single(&mut self, key: &'static str) -> Option<Section<'p>> {
        self.singles.remove(key)
    }
}

/// Tables of one file each, names from all files; a second definition names the first.
fn merge<'p>(problems: &'p Problems, files: Vec<Section<'p>>) -> Tables<'p> {
    let mut tables =
        Tables { singles: BTreeMap::new(), sources: Vec::new(), upstreams: Vec::new(), providers: Vec::new() };
    for mut file in files {
        for key in ["server", "admin", "store", "replay", "log"] {
            let Some(section) = file.section(key) else { continue };
            if let Some(first) = tables.singles.get(key) {
                twice(problems, section.place(), &format!("[{key}]"), first.place());
            } else {
                tables.singles.insert(key, section);
            }
        }
        merge_names(problems, &mut tables.sources, file.section("sources"));
        merge_names(problems, &mut tables.upstreams, file.section("upstreams"));
        merge_names(problems, &mut tables.providers, file.section("providers"));
        file.finish();
    }
    tables
}

fn merge_names<'p>(problems: &'p Problems, known: &mut Named<'p>, section: Option<Section<'p>>) {
    let Some(mut section) = section else { return };
    let kind = section.path().to_owned();
    for (name, value) in section.entries() {
        let fits = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !fits {
            problems.error(
                &name.place,
                format!("a name in [{kind}] must be 1 to 64 letters, digits, `-` or `_`"),
                "it goes into paths, headers, logs and metrics",
            );
        }
        if let Some((first, _)) = known.iter().find(|(other, _)| other.value == name.value) {
            twice(problems, &name.place, &format!("[{kind}.{}]", name.value), &first.place);
        } else {
            known.push((name, value));
        }
    }
}

fn twice(problems: &Problems, place: &Place, what: &str, first: &Place) {
    problems.error(place, format!("{what} is defined twice, first at {}", problems.locate(first)), "keep one of them");
}

fn read_providers(problems: &Problems, tables: Named<'_>) -> BTreeMap<String, Option<Arc<Provider>>> {
    let mut providers = BTreeMap::new();
    for (name, value) in tables {
        if preset::find(&name).is_some() {
            problems.error(
                &name.place,
                format!("`{}` is the name of a provider that ships with Hookward", name.value),
                "choose another name for your own, and use that in `provider`",
            );
        }
        // `None`: it is there and wrong, which was reported; a source that names it is not told so again.
        let provider = value.section().and_then(|section| preset::read(section, &name)).map(Arc::new);
        if preset::find(&name).is_none() {
            providers.insert(name.value, provider);
        }
    }
    providers
}

/// What `provider = "…"` means. `Err`: reported.
pub(super) fn resolve_provider(
    problems: &Problems,
    own: &BTreeMap<String, Option<Arc<Provider>>>,
    name: &At<String>,
) -> Option<Arc<Provider>> {
    if let Some(found) = own.get(&name.value) {
        return found.clone();
    }
    let found = preset::find(name);
    if found.is_none() {
        let presets = preset::all();
        let names: Vec<&str> =
            presets.iter().map(|preset| &*preset.name).chain(own.keys().map(String::as_str)).collect();
        let help = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"? known: {}", names.join(", ")),
            None => format!("known: {}; or define your own in [providers.{}]", names.join(", "), name.value),
        };
        problems.error(&name.place, format!("there is no provider \"{}\"", name.value), help);
    }
    found
}

fn directory_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// A text file of at most `bytes_max`.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is larger than {}", document::format_size(bytes_max))));
    }
    String::from_utf8(bytes).map_err(|error| {
        io::Error::other(format!("it is not UTF-8 text (byte {})", error.utf8_error().valid_up_to() + 1))
    })
}
