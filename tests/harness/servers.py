"""Private servers for the demo and the tests: Redis, Dovecot, Postfix and PostgreSQL, on free ports of 127.0.0.1, in a folder of their own.

Never the system's service manager, never the system's configuration. Everything that is started dies with this process.
"""
import contextlib
import ctypes
import getpass
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time

PR_SET_PDEATHSIG = 1


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_as(user):
    """In the child, before it runs the program. Changing the user forgets about the parent, so that comes last."""
    if user is not None:
        os.setgroups([])
        os.setgid(user[1])
        os.setuid(user[0])
        os.chdir("/")
    die_with_parent()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, timeout=30.0, what="condition"):
    """Polls `condition` until it is true; the timeout is generous, it only ends a test that hangs."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(0.05)


def port_answers(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def make_reachable(path):
    """Lets unprivileged users pass through root's folders to `path`."""
    while path != "/":
        if os.stat(path).st_uid == 0 and not os.stat(path).st_mode & 0o001:
            os.chmod(path, os.stat(path).st_mode | 0o011)
        path = os.path.dirname(path)


class Process:
    """A child whose output goes to a log file."""

    def __init__(self, name, argv, folder, env=None, user=None):
        """`user`: (uid, gid) to run as; only root can ask for that."""
        self.name = name
        self.log_path = os.path.join(folder, f"{name}.log")
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env={**os.environ, **(env or {})}, preexec_fn=lambda: start_as(user))

    def running(self):
        return self.child.poll() is None

    def kill(self):
        if self.running():
            self.child.kill()
        self.child.wait()

    def stop(self, timeout=20):
        if self.running():
            self.child.terminate()
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def log(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()


class Listener:
    """A server of the tests' own: each session is `_serve(client)` of the subclass, on a thread. Begin with it last."""

    def __init__(self):
        self.listener = self._listen()
        self.port = self.listener.getsockname()[1]
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _listen(self):
        return socket.create_server(("127.0.0.1", 0))

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self):
        self.listener.close()
        for client in self.open:
            client.close()


class Redis:
    """A redis-server without persistence. `options` are redis-server's, as on its command line."""

    def __init__(self, folder, options=(), name="redis", port=None):
        self.folder, self.options, self.name = folder, tuple(options), name
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        """On the same port as before, with nothing in it."""
        self.process = Process(self.name, ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                                           "--appendonly", "no", "--dir", self.folder, *self.options], self.folder)
        wait_until(lambda: port_answers(self.port), what="redis-server")

    def restart(self):
        self.kill()
        self.start()

    def kill(self):
        self.process.kill()

    def stop(self):
        self.kill()

    def pause(self):
        """SIGSTOP: connections stay, nothing is answered."""
        self.process.child.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.child.send_signal(signal.SIGCONT)

    def command(self, *words):
        """What redis-cli prints for this command; an error is printed too, and not raised."""
        return subprocess.run(["redis-cli", "-p", str(self.port), *map(str, words)], capture_output=True, text=True,
                              timeout=60).stdout

    def flushall(self):
        assert self.command("flushall").strip() == "OK"


class RedisCluster:
    """Six redis-servers: three masters with one replica each, which takes over about a second after its master's death."""

    def __init__(self, folder):
        self.nodes = []
        for i in range(6):
            port = free_port()
            while port > 55000:  # the nodes talk to each other on their port + 10000
                port = free_port()
            home = os.path.join(folder, f"redis-{i}")
            os.makedirs(home)
            self.nodes.append(Redis(home, ["--cluster-enabled", "yes", "--cluster-node-timeout", "500",
                                           "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"],
                                    port=port))
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        self.url = "redis://" + ",".join(addresses)
        made = self.nodes[0].command("--cluster", "create", *addresses, "--cluster-replicas", 1, "--cluster-yes")
        assert "All 16384 slots covered" in made, made
        wait_until(self.whole, what="the cluster")

    def whole(self):
        """Every node runs, knows all slots to be served, and its replication is up."""
        def well(node):
            if "cluster_state:ok" not in node.command("cluster", "info"):
                return False
            role = node.command("info", "replication")
            return ("connected_slaves:1" if "role:master" in role else "master_link_status:up") in role
        return all(node.process.running() and well(node) for node in self.nodes)

    def master_of(self, key):
        """The node that serves the slot of `key` now; None during a failover."""
        asked = next(node for node in self.nodes if node.process.running())
        slot = int(asked.command("cluster", "keyslot", key))
        for line in asked.command("cluster", "nodes").splitlines():
            words = line.split()
            if "master" not in words[2] or "fail" in words[2].split(","):
                continue
            for slots in words[8:]:
                first, _, last = slots.partition("-")
                if first.isdigit() and int(first) <= slot <= int(last or first):
                    port = int(words[1].split("@")[0].rsplit(":", 1)[1])
                    return next(node for node in self.nodes if node.port == port)
        return None

    def flushall(self):
        for node in self.nodes:
            if node.process.running() and "role:master" in node.command("info", "replication"):
                node.flushall()

    def stop(self):
        for node in self.nodes:
            node.stop()


class Postgres:
    """PostgreSQL on a free port of 127.0.0.1; as root it runs as the user postgres or nobody."""

    def __init__(self, folder, fsync=False):
        self.folder = os.path.join(folder, "postgres")
        self.fsync = fsync
        self.port = free_port()
        self.user = None
        os.makedirs(self.folder)
        if os.geteuid() == 0:
            try:
                entry = pwd.getpwnam("postgres")
            except KeyError:
                entry = pwd.getpwnam("nobody")
            self.user = (entry.pw_uid, entry.pw_gid)
            os.chown(self.folder, *self.user)
            make_reachable(self.folder)
        self.bin = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))[-1]
        done = subprocess.run([os.path.join(self.bin, "initdb"), "-D", f"{self.folder}/data", "-U", "postgres", "-A", "trust",
                               "-E", "UTF8", "--no-locale", "--no-sync"], preexec_fn=lambda: start_as(self.user),
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{done.stderr}")
        self.log_folder = folder
        self.start()

    def start(self):
        """Also after stop() and kill(): the same data on the same port."""
        sync = "on" if self.fsync else "off"
        argv = [os.path.join(self.bin, "postgres"), "-D", f"{self.folder}/data", "-k", self.folder, "-p", str(self.port), "-c",
                "listen_addresses=127.0.0.1", "-c", f"fsync={sync}", "-c", f"full_page_writes={sync}", "-c",
                "shared_buffers=32MB", "-c", "max_connections=100"]
        def answers():
            # Right after a kill the old processes may still hold the shared memory: then it ends at once.
            if not self.process.running():
                self.process = Process("postgres", argv, self.log_folder, user=self.user)
            return self._run("pg_isready", "-q", check=False).returncode == 0
        self.process = Process("postgres", argv, self.log_folder, user=self.user)
        wait_until(answers, 60, "PostgreSQL to answer")

    def _run(self, program, *arguments, check=True):
        return subprocess.run([os.path.join(self.bin, program), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres",
                               *arguments], capture_output=True, text=True, check=check, cwd="/")

    def create_database(self, name):
        self._run("createdb", name)
        return self.url(name)

    def url(self, name):
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def query(self, database, sql):
        """Lines of unaligned output."""
        return self._run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql).stdout.splitlines()

    @contextlib.contextmanager
    def holding(self, database, sql):
        """What this statement locks stays locked meanwhile."""
        session = subprocess.Popen([os.path.join(self.bin, "psql"), "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U",
                                    "postgres", "-d", database], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        session.stdin.write(f"BEGIN;\n{sql};\nSELECT 'locked';\n")
        session.stdin.flush()
        while session.stdout.readline() not in ("locked\n", ""):
            pass
        try:
            yield
        finally:
            session.communicate("ROLLBACK;\n", timeout=60)

    def processes(self):
        """The server and its children, which have sessions of their own."""
        out = [self.process.child.pid]
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/stat") as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue  # it ended meanwhile
            if parent == self.process.child.pid:
                out.append(int(name))
        return out

    def signal(self, number):
        for pid in self.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.kill()

    def stop(self, mode="fast"):
        """As pg_ctl: smart waits for the clients, fast rolls them back, immediate is a crash."""
        if self.process.running():
            self.process.child.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self.process.child.wait(60)


class Authority:
    """A private certificate authority."""

    def __init__(self, folder):
        self.folder = os.path.join(folder, "ca")
        os.makedirs(self.folder)
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
                      "-out", "ca.pem", "-days", "30", "-subj", "/CN=Poststelle demo authority")
        self.path = os.path.join(self.folder, "ca.pem")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name, days=20, host="localhost"):
        """A key and a certificate for `host`; a negative number of days makes an expired one."""
        with open(os.path.join(self.folder, "ext"), "w") as ext:
            ext.write(f"subjectAltName=DNS:{host}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out",
                      f"{name}.csr", "-subj", f"/CN={host}")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile",
                      "ext", "-out", f"{name}.pem", "-days", str(days))
        return os.path.join(self.folder, f"{name}.pem"), os.path.join(self.folder, f"{name}.key")


class Dovecot:
    """IMAP over TLS and STARTTLS with accounts whose mail lies in Maildirs.

    As root Dovecot drops to an unprivileged user of the system; as anybody else everything runs as that user.

    With `any_password` every login name is let in with that password, and the sign-in is tuned for benchmarks: login
    processes that serve many connections (a process a login does 70 a second and never resumes TLS), and no limits.
    """

    def __init__(self, folder, authority, accounts, any_password=None, mechanisms="plain login"):
        self.folder = os.path.join(folder, "dovecot")
        self.ports = {"imaps": free_port(), "imap": free_port()}
        self.root = os.geteuid() == 0
        self.user = "mail" if self.root else getpass.getuser()
        entry = pwd.getpwnam(self.user)
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        os.makedirs(os.path.join(self.folder, "mail"))
        self.accounts = accounts
        self.auth_socket = os.path.join(self.folder, "run", "smtp-auth")
        certificate, key = authority.issue("dovecot")
        with open(os.path.join(self.folder, "passwd"), "w") as passwd:
            for name, password in accounts.items():
                passwd.write(f"{name}:{{PLAIN}}{password}\n")
                for sub in ("cur", "new", "tmp"):
                    os.makedirs(os.path.join(self.maildir(name), sub))
        passdb = f"""
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {self.folder}/passwd
}}
""" if any_password is None else f"""
passdb {{
  driver = static
  args = password={any_password}
}}
service imap-login {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = 4000
}}
service imap {{
  service_count = 1000000
  process_min_avail = 8
  process_limit = 4000
}}
service anvil {{
  client_limit = 20000
}}
service auth {{
  client_limit = 20000
}}
"""
        group = __import__("grp").getgrgid(self.gid).gr_name
        internal = "" if self.root else f"""
default_internal_user = {self.user}
default_internal_group = {group}
default_login_user = {self.user}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
}}
service stats {{
  chroot =
}}
"""
        config = f"""
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.folder}/log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = yes
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{self.folder}/mail/%u
mail_max_userip_connections = {100 if any_password is None else 10000}
auth_mechanisms = {mechanisms}
# A wrong password in one test must not slow down the sign-in of the next.
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
{passdb}
# For a mail server that asks here who may sign in.
service auth {{
  unix_listener {self.auth_socket} {{
    mode = 0666
  }}
}}
userdb {{
  driver = static
  args = uid={self.uid} gid={self.gid} home={self.folder}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    port = {self.ports['imap']}
  }}
  inet_listener imaps {{
    port = {self.ports['imaps']}
    ssl = yes
  }}
}}
{internal}
"""
        self.config = os.path.join(self.folder, "dovecot.conf")
        with open(self.config, "w") as out:
            out.write(config)
        if self.root:
            # The unprivileged users have to reach the folder, and own the mail.
            make_reachable(self.folder)
            self._own(os.path.join(self.folder, "mail"))
        self.log_folder = folder
        self.sequence = 0
        self.start()

    def start(self):
        binary = shutil.which("dovecot") or "/usr/sbin/dovecot"
        self.process = Process("dovecot", [binary, "-F", "-c", self.config], self.log_folder)
        wait_until(lambda: port_answers(self.ports["imaps"]) and port_answers(self.ports["imap"]), what="dovecot")

    def _own(self, path):
        for base, folders, files in os.walk(path):
            os.chown(base, self.uid, self.gid)
            for name in files:
                os.chown(os.path.join(base, name), self.uid, self.gid)

    def maildir(self, account):
        return os.path.join(self.folder, "mail", account)

    def deliver(self, account, raw, seen=False, received=None, folder=None):
        """Puts a mail into the INBOX, or another folder, which is made; as a delivery agent does: written aside, then renamed."""
        self.sequence += 1
        home = os.path.join(self.maildir(account), "." + folder) if folder else self.maildir(account)
        if not os.path.isdir(home):
            for part in ("cur", "new", "tmp"):
                os.makedirs(os.path.join(home, part))
            if self.root:
                self._own(home)
        # Dovecot gives UIDs in the order of the microseconds in the name.
        now = time.time()
        name = f"{int(now)}.M{int(now % 1 * 1e6):06d}P{os.getpid()}Q{self.sequence}.localhost"
        temporary = os.path.join(home, "tmp", name)
        with open(temporary, "wb") as out:
            out.write(raw)
        if received is not None:
            os.utime(temporary, (received, received))
        if self.root:
            os.chown(temporary, self.uid, self.gid)
        target = os.path.join("cur", name + ":2,S") if seen else os.path.join("new", name)
        os.rename(temporary, os.path.join(home, target))
        return os.path.join(home, target)

    def rebuild(self, account):
        """Forgets the UIDs: the folder comes back with another UIDVALIDITY.

        Dovecot is down meanwhile: a session that is open would write the old UIDs back when it ends.
        """
        self.process.stop()
        for name in os.listdir(self.maildir(account)):
            if name.startswith("dovecot"):
                path = os.path.join(self.maildir(account), name)
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        self.start()

    def stop(self):
        try:
            self.process.stop()
        except subprocess.TimeoutExpired:
            pass


class Postfix:
    """Submission with STARTTLS and with TLS, for the accounts of a Dovecot, into whose Maildirs it delivers.

    Only root can run Postfix's master. `settings` are lines of main.cf, above everything else.
    """

    BINARIES = "/usr/lib/postfix/sbin"

    def __init__(self, folder, authority, dovecot, settings=(), host="localhost"):
        if os.geteuid() != 0:
            raise RuntimeError("Postfix runs as root only: its master insists on it")
        self.folder = os.path.join(folder, "postfix")
        self.log_folder = folder
        self.ports = {"submission": free_port(), "submissions": free_port()}
        certificate, key = authority.issue("postfix", host=host)
        owner = pwd.getpwnam("postfix")
        for name in ("etc", "queue/pid", "data"):
            os.makedirs(os.path.join(self.folder, name))
        queues = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace",
                  "maildrop", "public")
        for name in ["data"] + [f"queue/{queue}" for queue in queues]:
            path = os.path.join(self.folder, name)
            os.makedirs(path, exist_ok=True)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        make_reachable(self.folder)
        make_reachable(dovecot.folder)
        # A recipient beside these is refused.
        with open(os.path.join(self.folder, "mailboxes"), "w") as mailboxes:
            mailboxes.writelines(f"{account} {account}/\n" for account in dovecot.accounts)
        domains = " ".join(sorted({account.rpartition("@")[2] for account in dovecot.accounts}))
        self.log_path = os.path.join(self.folder, "log")
        main = f"""
compatibility_level = 3.6
queue_directory = {self.folder}/queue
data_directory = {self.folder}/data
daemon_directory = {self.BINARIES}
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {self.log_path}
maillog_file_prefixes = {self.folder}
myhostname = mx.localhost
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_transport = error:no local mail
default_transport = error:no mail to other servers
relay_transport = error:no mail to other servers
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {dovecot.folder}/mail
virtual_mailbox_maps = texthash:{self.folder}/mailboxes
virtual_minimum_uid = 1
virtual_uid_maps = static:{dovecot.uid}
virtual_gid_maps = static:{dovecot.gid}
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {dovecot.auth_socket}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_peername_lookup = no
# A mistake in one test must not slow down the next.
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtputf8_enable = yes
"""
        main += "".join(f"{line}\n" for line in settings)
        services = [f"127.0.0.1:{self.ports['submission']} inet n - n - - smtpd",
                    f"127.0.0.1:{self.ports['submissions']} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes",
                    "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr", "tlsmgr unix - - n 1000? 1 tlsmgr",
                    "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce", "defer unix - - n - 0 bounce",
                    "trace unix - - n - 0 bounce", "proxymap unix - - n - - proxymap", "error unix - - n - - error",
                    "retry unix - - n - - error", "virtual unix - n n - - virtual", "anvil unix - - n - 1 anvil",
                    "postlog unix-dgram n - n - 1 postlogd"]
        for name, text in (("main.cf", main), ("master.cf", "\n".join(services) + "\n")):
            with open(os.path.join(self.folder, "etc", name), "w") as out:
                out.write(text)
        self.start()

    def start(self):
        self.process = Process("postfix", [os.path.join(self.BINARIES, "master"), "-c", os.path.join(self.folder, "etc"), "-d"],
                               self.log_folder)
        def answers():
            if not self.process.running():
                raise RuntimeError(f"Postfix did not start:\n{self.process.log()}\n{self.log()}")
            return all(port_answers(port) for port in self.ports.values())
        wait_until(answers, what="Postfix")

    def log(self):
        try:
            with open(self.log_path, errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def stop(self):
        """Its children notice and end too."""
        try:
            self.process.stop()
        except subprocess.TimeoutExpired:
            pass
