"""Keys of a local deployment: strict verifiers accept them, and nobody else gets to read or place them."""

import datetime
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading

import certificates
import pytest
import run_local
from cryptography import x509
from cryptography.x509 import verification
from processes import REPOSITORY


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return certificates.make_keys(tmp_path_factory.mktemp("deployment") / "keys", 2)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_strict_client_shakes_hands(keys, name):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(keys.certificate, keys.key)
    client = ssl.create_default_context(cafile=keys.ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            accepted, _ = listening.accept()
            with server.wrap_socket(accepted, server_side=True) as secured:
                secured.sendall(b"hello")

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        with (
            socket.create_connection(listening.getsockname(), timeout=10) as plain,
            client.wrap_socket(plain, server_hostname=name) as secured,
        ):
            assert secured.recv(5) == b"hello"
        serving.join(10)


def test_cryptographys_verifier_accepts_the_chain(keys):
    authority, server = (
        x509.load_pem_x509_certificate(path.read_bytes()) for path in (keys.ca, keys.certificate)
    )
    builder = verification.PolicyBuilder().store(verification.Store([authority]))
    chain = builder.build_server_verifier(x509.DNSName("localhost")).verify(server, [])
    assert chain == [server, authority]
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    assert authority.not_valid_after_utc > tomorrow


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_openssl_verifies_strictly(keys):
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", keys.ca]
    done = subprocess.run([*command, keys.certificate], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_server_is_no_authority_and_the_authority_no_server(keys):
    for path, is_authority in ((keys.ca, True), (keys.certificate, False)):
        extensions = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca == is_authority
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert (usage.value.key_cert_sign, usage.value.digital_signature) == (is_authority, not is_authority)


@pytest.mark.parametrize("before", [None, 0o755, 0o777])
def test_only_the_owner_gets_in(before, tmp_path):
    folder = tmp_path / "keys"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)
    certificates.make_keys(folder, 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_of_an_earlier_bigger_deployment_are_removed_and_nothing_else_is(tmp_path):
    before = certificates.make_keys(tmp_path, 12)
    secrets = {path.name: path.read_bytes() for path in [*before.nodes, before.key]}
    (tmp_path / "node-notes.txt").write_text("mine")
    after = certificates.make_keys(tmp_path, 2)
    own = {"ca.crt", "superlink.crt", "superlink.key", "node-notes.txt"}
    assert names(tmp_path) == own | {"node-0", "node-0.pub", "node-1", "node-1.pub"}
    assert all(path.read_bytes() != secrets[path.name] for path in [*after.nodes, after.key])


@pytest.mark.parametrize("name", ["ca.crt", "superlink.key", "node-0", "node-1.pub", "node-7"])
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_written_through_a_link(name, dangling, tmp_path):
    folder, elsewhere = tmp_path / "keys", tmp_path / "elsewhere"
    folder.mkdir()
    if not dangling:
        elsewhere.write_text("precious")
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(ValueError, match=f"{name} is a link: keys are not written through links"):
        certificates.make_keys(folder, 2)
    assert not elsewhere.exists() if dangling else elsewhere.read_text() == "precious"
    assert names(folder) == {name}


def test_a_link_is_no_folder_for_keys(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="keys is a link: keys are not written through links"):
        certificates.make_keys(tmp_path / "keys", 1)
    assert names(tmp_path / "elsewhere") == set()


@pytest.mark.parametrize("nodes", [0, -3])
def test_a_deployment_has_at_least_one_node(nodes, tmp_path):
    with pytest.raises(ValueError, match=f"nodes must be at least 1, got {nodes}"):
        certificates.make_keys(tmp_path / "keys", nodes)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        (
            "certificates",
            ["--nodes", "-3"],
            "argument --nodes: must be a whole number of at least 1, got '-3'",
        ),
        ("certificates", ["--nodes", "0"], "argument --nodes: must be a whole number of at least 1, got '0'"),
        ("certificates", ["--nodes", "four"], "got 'four'"),
        ("certificates", ["--folder", "file"], "file"),
        ("run_local", ["--nodes", "-3"], "argument --nodes: must be a whole number of at least 1, got '-3'"),
        ("run_local", ["--byzantine", "-1=bitflip"], "expected one argument"),
        ("run_local", ["--byzantine=-1=bitflip"], "must be NODE=ATTACK[:OPTIONS], as 0=bitflip"),
        (
            "run_local",
            ["--byzantine", "bitflip"],
            "must be NODE=ATTACK[:OPTIONS], as 0=bitflip, got 'bitflip'",
        ),
        ("run_local", ["--nodes", "2", "--byzantine", "2=bitflip"], "there is no node 2 of 2, from 0"),
    ],
)
def test_mistakes_are_named(script, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        {"certificates": certificates, "run_local": run_local}[script].main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_writes_the_keys(tmp_path):
    command = [sys.executable, str(REPOSITORY / "deploy" / "certificates.py"), "--nodes", "1"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "keys")], capture_output=True, text=True, check=True
    )
    assert "keys of a SuperLink and 1 SuperNodes" in done.stdout
    assert "superlink.key" in names(tmp_path / "keys")
