//! What people do to manifests, and what the source makes of it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::Op;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: 10.96.0.10\n  ports:\n  - port: {port}\n"
    )
}

fn read(text: &str) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("web.yaml"), text).unwrap();
    let batch = Source::new(vec![folder.path().into()]).read_once();
    (words(&batch.changes), told(&batch, folder.path()))
}

/// `+default/web:80` for a Service that is there, `-default/web` for one that went.
fn words(changes: &[Change]) -> Vec<String> {
    let mut words = Vec::new();
    for change in changes {
        match change {
            Change::Service(Op::Apply(service)) => words.push(shown(service)),
            Change::Service(Op::Reset(all)) => words.extend(all.iter().map(shown)),
            Change::Service(Op::Delete(name)) => words.push(format!("-{name}")),
            Change::EndpointSlice(Op::Reset(all)) => {
                words.extend(all.iter().map(|slice| format!("+slice {:?}", slice.metadata.name)));
            }
            _ => {}
        }
    }
    words
}

fn shown(service: &k8s_openapi::api::core::v1::Service) -> String {
    let port = service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port;
    let meta = &service.metadata;
    format!("+{}/{}:{port}", meta.namespace.as_ref().unwrap(), meta.name.as_ref().unwrap())
}

fn told(batch: &Batch, folder: &Path) -> Vec<String> {
    let folder = format!("{}/", folder.display());
    batch.reports.iter().map(|report| report.to_string().replace(&folder, "")).collect()
}

#[test]
fn a_number_in_quotes_is_told_with_file_line_and_field_as_an_api_server_would() {
    let (services, told) = read(&service("web", 80).replace("port: 80", "port: \"80\""));
    assert_eq!(services, [""; 0]);
    assert_eq!(
        told,
        [
            "web.yaml:8: Service default/web: spec.ports[0].port: invalid type: string \"80\", expected i32"
        ]
    );
    // What may be either is taken either way, and the order of keys says nothing.
    let text = service("web", 80).replace("port: 80", "targetPort: \"80\"\n    port: 80");
    assert_eq!(read(&text), (vec!["+default/web:80".to_owned()], vec![]));
}

#[test]
fn many_documents_lists_and_json_are_all_read_and_the_rest_of_a_dump_is_passed_over() {
    let list = "---\napiVersion: v1\nkind: List\nitems:\n- spec:\n    ports:\n    - port: 81\n  kind: Service\n  apiVersion: v1\n  metadata: {name: late, namespace: shop}\n- apiVersion: apps/v1\n  kind: Deployment\n  metadata: {name: web}\n";
    let json = "---\n{\"apiVersion\": \"v1\", \"kind\": \"ServiceList\", \"metadata\": {},\n\t\"items\": [{\"metadata\": {\"name\": \"json\"}, \"spec\": {\"ports\": [{\"port\": 82}]}}]}\n";
    let (objects, reports) = read(&format!("{}{list}{json}", service("web", 80)));
    assert_eq!(objects, ["+default/json:82", "+default/web:80", "+shop/late:81"]);
    assert_eq!(reports, Vec::<String>::new());
}

#[test]
fn a_wrong_type_is_reported_with_file_line_object_and_field() {
    let text = format!("# comment\n---\n{}", service("web", 80).replace("port: 80", "port: http"));
    let (objects, reports) = read(&text);
    assert_eq!(objects, Vec::<String>::new());
    assert_eq!(reports.len(), 1);
    let start = "web.yaml:10: Service default/web: spec.ports[0].port: ";
    assert!(reports[0].starts_with(start), "{}", reports[0]);
}

#[test]
fn a_port_that_cannot_be_is_reported_and_the_other_objects_of_a_new_file_are_used() {
    let text = format!("{}---\n{}", service("bad", 80).replace("80", "99999"), service("good", 80));
    let (objects, reports) = read(&text);
    assert_eq!(objects, ["+default/good:80"]);
    assert_eq!(
        reports,
        ["web.yaml:8: Service default/bad: spec.ports[0].port: 99999 is not a port (1-65535)"]
    );
}

#[test]
fn the_faults_of_several_items_of_a_list_are_all_reported() {
    let text = "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: 7}}\n- {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 1}]}}\n- {apiVersion: v1, kind: Service, metadata: {name: c}, spec: {ports: [{port: {}}]}}\n";
    let (objects, reports) = read(text);
    assert_eq!(objects, ["+default/b:1"]);
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports[0].starts_with("web.yaml:4: Service default/a: spec.ports: "), "{reports:?}");
    assert!(
        reports[1].starts_with("web.yaml:6: Service default/c: spec.ports[0].port"),
        "{reports:?}"
    );
}

#[test]
fn what_is_no_object_of_kubernetes_is_reported() {
    for (text, want) in [
        ("kind: Servise\napiVersion: v1\n", "web.yaml:1: unknown kind `Servise` of v1"),
        (
            "apiVersion: acme.io/v1\nkind: Gizmo\n",
            "web.yaml:1: unknown kind `Gizmo` of acme.io/v1: passed over",
        ),
        ("hello: world\n", "web.yaml:1: no `kind`: this is not a Kubernetes object"),
        ("kind: Service\n", "web.yaml:1: Service: no `apiVersion`"),
        ("kind: Service\napiVersion: v1\n", "web.yaml:1: Service: metadata.name: missing"),
    ] {
        assert_eq!(read(text), (vec![], vec![want.to_owned()]), "{text}");
    }
}

#[test]
fn the_later_of_two_files_wins_and_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), service("web", 80)).unwrap();
    fs::write(folder.path().join("b.yaml"), service("web", 81)).unwrap();
    let batch = Source::new(vec![folder.path().into()]).read_once();
    assert_eq!(words(&batch.changes), ["+default/web:81"]);
    let want = format!(
        "b.yaml: Service default/web: is also in {}/a.yaml; this one is used",
        folder.path().display()
    );
    assert_eq!(batch.reports[0].severity, Severity::Warning);
    assert!(batch.reports[0].to_string().ends_with(&want), "{:?}", batch.reports);
}

#[test]
fn a_path_that_is_not_there_yet_keeps_the_listing_from_being_complete() {
    let batch = Source::new(vec!["/nonexistent/lb.yaml".into()]).read_once();
    assert_eq!(batch.changes, []);
    assert_eq!(batch.reports[0].to_string(), "/nonexistent/lb.yaml: no such file or folder");
}

/// A watched folder and what comes out of it.
struct Scene {
    folder: TempDir,
    batches: mpsc::Receiver<Batch>,
    stop: CancellationToken,
}

impl Scene {
    /// Watches `watched` inside a folder that `prepare` has filled.
    fn new(watched: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let (to, batches) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let source = Source::new(vec![folder.path().join(watched)]);
        tokio::spawn(source.watch(to, stop.clone()));
        Self { folder, batches, stop }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The next batch: its changes and all that is wrong.
    async fn next(&mut self) -> (Vec<String>, Vec<String>) {
        let batch = tokio::time::timeout(Duration::from_secs(20), self.batches.recv());
        let batch = batch.await.expect("a batch in time").expect("a watch that runs");
        (words(&batch.changes), told(&batch, self.folder.path()))
    }

    async fn next_is(&mut self, changes: &[&str]) {
        assert_eq!(self.next().await, (changes.iter().map(ToString::to_string).collect(), vec![]));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn one_service(folder: &Path) {
    fs::write(folder.join("web.yaml"), service("web", 80)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_renamed_and_removed_is_followed() {
    let mut scene = Scene::new("", one_service);
    scene.next_is(&["+default/web:80"]).await;
    scene.write("web.yaml", &service("web", 81));
    scene.next_is(&["+default/web:81"]).await;
    scene.write("new.tmp", &service("web", 82));
    fs::rename(scene.path("new.tmp"), scene.path("web.yaml")).unwrap();
    scene.next_is(&["+default/web:82"]).await;
    scene.write("more.yaml", &service("more", 1));
    scene.next_is(&["+default/more:1"]).await;
    fs::remove_file(scene.path("web.yaml")).unwrap();
    scene.next_is(&["-default/web"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_breaks_keeps_its_last_good_contents_and_the_others_go_on() {
    let both = format!("{}---\n{}", service("a", 1), service("b", 2));
    let mut scene = Scene::new("", |folder| fs::write(folder.join("ab.yaml"), &both).unwrap());
    scene.next_is(&["+default/a:1", "+default/b:2"]).await;
    // Cut off in the middle of b, as a full disk would.
    scene.write("ab.yaml", &both[..both.len() - 12]);
    let (changes, reports) = scene.next().await;
    assert_eq!(changes, Vec::<String>::new());
    assert!(reports[0].ends_with("; the file's last good contents stay in force"), "{reports:?}");
    scene.write("other.yaml", &service("other", 3));
    assert_eq!(scene.next().await.0, ["+default/other:3"]);
    scene.write("ab.yaml", &both.replace("port: 2", "port: 4"));
    scene.next_is(&["+default/b:4"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_middle_of_being_written_is_not_looked_at() {
    use std::io::Write;
    let mut scene = Scene::new("", one_service);
    scene.next_is(&["+default/web:80"]).await;
    let mut file = fs::File::create(scene.path("web.yaml")).unwrap();
    // Another file's news make the source look around while this one is empty.
    scene.write("other.yaml", &service("other", 1));
    scene.next_is(&["+default/other:1"]).await;
    file.write_all(service("web", 81).as_bytes()).unwrap();
    drop(file);
    scene.next_is(&["+default/web:81"]).await;
}

#[test]
fn a_file_that_was_emptied_and_of_which_no_event_told_yet_keeps_its_contents() {
    let folder = tempfile::tempdir().unwrap();
    let (path, paths) = (folder.path().join("web.yaml"), [folder.path().to_owned()]);
    let mut store = Store::default();
    fs::write(&path, service("web", 80)).unwrap();
    let first = store.refresh(Listing::of(&paths), &Hints::default()).0;
    assert_eq!(words(&first), ["+default/web:80"]);
    fs::write(&path, "").unwrap();
    assert_eq!(words(&store.refresh(Listing::of(&paths), &Hints::default()).0), [""; 0]);
    let closed = Hints { written: [path.clone()].into(), ..Hints::default() };
    assert_eq!(words(&store.refresh(Listing::of(&paths), &closed).0), ["-default/web"]);
    fs::write(&path, service("web", 81)).unwrap();
    let lost = Hints { all_written: true, ..Hints::default() };
    assert_eq!(words(&store.refresh(Listing::of(&paths), &lost).0), ["+default/web:81"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_that_moves_the_old_file_away_first_removes_nothing() {
    let mut scene = Scene::new("", one_service);
    scene.next_is(&["+default/web:80"]).await;
    fs::rename(scene.path("web.yaml"), scene.path("web.yaml~")).unwrap();
    scene.write("web.yaml", &service("web", 81));
    scene.next_is(&["+default/web:81"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_swapped_as_a_whole_is_one_change() {
    let fill = |folder: &Path, version: &str, port| {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("web.yaml"), service("web", port)).unwrap();
        fs::write(folder.join(version).join("api.yaml"), service("api", port)).unwrap();
    };
    let mut scene = Scene::new("", |folder| {
        fill(folder, "..1", 80);
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/web.yaml", folder.join("web.yaml")).unwrap();
        symlink("..data/api.yaml", folder.join("api.yaml")).unwrap();
    });
    scene.next_is(&["+default/api:80", "+default/web:80"]).await;
    fill(scene.folder.path(), "..2", 81);
    symlink("..2", scene.path("..data_tmp")).unwrap();
    fs::rename(scene.path("..data_tmp"), scene.path("..data")).unwrap();
    fs::remove_dir_all(scene.path("..1")).unwrap();
    scene.next_is(&["+default/api:81", "+default/web:81"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_does_not_exist_yet_is_waited_for_and_may_come_and_go() {
    let mut scene = Scene::new("etc/lb", |_| {});
    assert_eq!(scene.next().await, (vec![], vec!["etc/lb: no such file or folder".into()]));
    fs::create_dir_all(scene.path("etc/next")).unwrap();
    scene.write("etc/next/web.yaml", &service("web", 80));
    fs::rename(scene.path("etc/next"), scene.path("etc/lb")).unwrap();
    scene.next_is(&["+default/web:80"]).await;
    fs::create_dir_all(scene.path("etc/next")).unwrap();
    scene.write("etc/next/api.yaml", &service("api", 80));
    fs::remove_dir_all(scene.path("etc/lb")).unwrap();
    assert_eq!(scene.next().await.0, ["-default/web"]);
    fs::rename(scene.path("etc/next"), scene.path("etc/lb")).unwrap();
    scene.next_is(&["+default/api:80"]).await;
    scene.write("etc/lb/api.yaml", &service("api", 81));
    scene.next_is(&["+default/api:81"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_file_in_a_crowd_costs_one_change() {
    let mut scene = Scene::new("", |folder| {
        for n in 0..100 {
            fs::write(folder.join(format!("{n}.yaml")), service(&format!("s{n}"), 80)).unwrap();
        }
    });
    assert_eq!(scene.next().await.0.len(), 100);
    scene.write("7.yaml", &service("s7", 81));
    scene.next_is(&["+default/s7:81"]).await;
}
