#!/usr/bin/env bash
# A Ray cluster of several hosts on this one Linux machine, made by `ray up` as on machines of one's own.
#
#   bash scripts/local_cluster.sh up          hosts, then `ray up`; says how to use the cluster
#   bash scripts/local_cluster.sh hosts       the hosts alone, without Ray
#   bash scripts/local_cluster.sh status      hosts, their memory, whether Ray runs on them
#   bash scripts/local_cluster.sh kill N      pulls host N's plug: its link first, then its processes
#   bash scripts/local_cluster.sh start N     host N boots again, and Ray on it
#   bash scripts/local_cluster.sh ssh N ...   a command on host N (1 is the head)
#   bash scripts/local_cluster.sh down        removes all of it, and checks that nothing is left
#
# A host is a network, PID, mount and UTS namespace on a bridge, with an sshd, a /tmp, a home and a /dev/shm of its own,
# one core, and capped memory; the folder DIR/shared is the same on all hosts, as is this project. Nothing of the
# machine's own is touched: not its sshd, not its firewall.
#
# LMRAY_CLUSTER_NAME  up to 9 letters, for several clusters beside each other (lmray), LMRAY_CLUSTER_NET its first three
# numbers (10.77.0), LMRAY_CLUSTER_DIR its files (/tmp/NAME-cluster), LMRAY_CLUSTER_HOSTS how many (3),
# LMRAY_CLUSTER_MEMORY bytes for each (4000000000), RAY_AUTH_MODE token or disabled (token).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

project=$PWD
venv=$(realpath "${LMRAY_VENV:-.venv}")
name=${LMRAY_CLUSTER_NAME:-lmray}
net=${LMRAY_CLUSTER_NET:-10.77.0}
dir=${LMRAY_CLUSTER_DIR:-/tmp/$name-cluster}
hosts=${LMRAY_CLUSTER_HOSTS:-3}
memory=${LMRAY_CLUSTER_MEMORY:-4000000000}
auth_mode=${RAY_AUTH_MODE:-token}
bridge=${name}-br

refuse() {
  echo "error: $1" >&2
  exit 3
}

require() {
  [ "$(uname -s)" = Linux ] || refuse "hosts are made of Linux namespaces, and this is $(uname -s); use a Linux machine"
  [ "$(id -u)" = 0 ] || refuse "namespaces and bridges need root, and this is $(id -un); run it as root"
  local tool missing=()
  for tool in ip sshd ssh ssh-keygen rsync nsenter unshare taskset; do
    PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} = 0 ] || refuse "${missing[*]} not found; apt-get install openssh-server rsync iproute2"
  [ -x "$venv/bin/ray" ] || refuse "no Ray in $venv; run scripts/quickstart.sh once or set LMRAY_VENV"
  ip link add "$name-try" type bridge 2>/dev/null || refuse "this machine lets nobody make network bridges (a container?); use another"
  ip link del "$name-try"
}

address() { echo "$net.$((10 + $1))"; }

numbers() { seq 1 "$(cat "$dir/hosts")"; }

on_host() { # on_host N COMMAND: runs it there by ssh, as Ray does
  local number=$1
  shift
  ssh -i "$dir/key" -o UserKnownHostsFile="$dir/known_hosts" -o ConnectTimeout=5 -o BatchMode=yes -o LogLevel=ERROR \
    "root@$(address "$number")" "$@"
}

client() { # a ray command of this machine; what it writes, it writes into the cluster's folder
  env RAY_UP_enable_autoscaler_v2=0 RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE="$(cat "$dir/auth_mode")" \
    RAY_AUTH_TOKEN_PATH="$dir/auth_token" RAY_TMPDIR="$dir/client" TMPDIR="$dir/client" "$venv/bin/ray" "$@"
}

# What holds a host to its core and its memory: cgroups of version 2 or 1 where those can be made, else the affinity
# and a limit on each of its processes.
cap_kind() {
  if [ -w /sys/fs/cgroup/cgroup.subtree_control ] && grep -w memory /sys/fs/cgroup/cgroup.subtree_control | grep -qw cpu; then
    echo cgroup2
  elif [ -w /sys/fs/cgroup/memory/cgroup.procs ] && [ -w /sys/fs/cgroup/cpu/cgroup.procs ]; then
    echo cgroup1
  else
    echo ulimit
  fi
}

groups_of() { # the cgroups of host N, the one that caps its memory first
  case $(cat "$dir/cap") in
    cgroup2) echo "/sys/fs/cgroup/$name-h$1" ;;
    cgroup1) echo "/sys/fs/cgroup/memory/$name-h$1" "/sys/fs/cgroup/cpu/$name-h$1" ;;
  esac
}

# On a machine that others keep busy a host still gets four shares: Ray gives its own start 15 seconds.
make_groups() {
  local group
  for group in $(groups_of "$1"); do mkdir -p "$group"; done
  case $(cat "$dir/cap") in
    cgroup2)
      echo "$memory" >"$group/memory.max"
      echo "100000 100000" >"$group/cpu.max"
      echo 400 >"$group/cpu.weight"
      ;;
    cgroup1)
      echo "$memory" >"/sys/fs/cgroup/memory/$name-h$1/memory.limit_in_bytes"
      echo 100000 >"$group/cpu.cfs_quota_us"
      echo 4096 >"$group/cpu.shares"
      ;;
  esac
}

make_bridge() {
  ip link add "$bridge" type bridge
  ip addr add "$net.1/24" dev "$bridge"
  ip link set "$bridge" up
}

make_host() { # its home, its sshd's files, its network; not yet running
  local number=$1 host=$dir/h$1 home
  home=$(getent passwd root | cut -d: -f6)
  mkdir -p "$host/tmp" "$host$home/.ray"
  mkdir -p -m 755 "$host/run/sshd"
  chmod 1777 "$host/tmp"
  ssh-keygen -q -t ed25519 -N '' -C "$name-h$number" -f "$host/run/sshd/host_key"
  cp "$dir/key.pub" "$host/run/sshd/"
  cat >"$host/run/sshd/config" <<END
HostKey /run/sshd/host_key
AuthorizedKeysFile /run/sshd/key.pub
PidFile none
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
END
  # At the level of "info" Ray's logs have the values of a job's environment. A head whose dashboard takes long on a
  # busy machine would go on without one, and take no jobs. And Ray Data would wait six minutes for a host without power.
  cat >"$host$home/.bashrc" <<END
export PATH=$venv/bin:\$PATH RAY_AUTH_MODE=$auth_mode RAY_USAGE_STATS_ENABLED=0 RAY_LOGGER_LEVEL=warning RAY_DASHBOARD_STARTUP_TIMEOUT_S=300 RAY_grpc_client_keepalive_time_ms=20000 RAY_grpc_client_keepalive_timeout_ms=40000
END
  echo "$(address "$number") $(cut -d' ' -f1,2 "$host/run/sshd/host_key.pub")" >>"$dir/known_hosts"
  ip netns add "$name-h$number"
  ip link add "$name-v$number" type veth peer name eth0 netns "$name-h$number"
  ip link set "$name-v$number" master "$bridge"
  ip -n "$name-h$number" addr add "$(address "$number")/24" dev eth0
  ip -n "$name-h$number" link set lo up
  ip -n "$name-h$number" link set eth0 up
  ip -n "$name-h$number" route add default via "$net.1"
}

boot_host() { # starts its first process, which becomes its sshd
  local number=$1 host=$dir/h$1 tries
  ip link set "$name-v$number" up
  make_groups "$number"
  setsid nsenter --net="/run/netns/$name-h$number" unshare --pid --fork --kill-child --mount --uts --mount-proc \
    bash "$project/scripts/local_cluster.sh" _init "$number" </dev/null >>"$host/sshd.log" 2>&1 &
  echo $! >"$host/pid"
  for tries in $(seq 50); do
    if on_host "$number" true 2>/dev/null; then return; fi
    sleep 0.2
  done
  on_host "$number" true || true
  echo "error: host $number does not answer ssh at $(address "$number"); see $host/sshd.log, and whether the firewall filters bridges" >&2
  exit 1
}

init() { # host N's first process, inside its namespaces
  local number=$1 host=$dir/h$1 group home private kept order
  hostname "$name-h$number"
  for group in $(groups_of "$number"); do echo 0 >"$group/cgroup.procs"; done
  case $(cat "$dir/cap") in
    # Ray reads the cap where a container would have it.
    cgroup1) mount --bind "/sys/fs/cgroup/memory/$name-h$number" /sys/fs/cgroup/memory ;;
    ulimit)
      ulimit -d $((memory / 1024))
      taskset -pc $(((number - 1) % $(nproc))) $$ >/dev/null
      ;;
  esac
  mount --bind "$host/run" /run
  mount -t tmpfs -o size=1g shm /dev/shm
  home=$(getent passwd root | cut -d: -f6)
  for private in "$home" /tmp; do
    for kept in "$dir/shared" "$project" "$venv" "$("$venv/bin/python" -c 'import sys; print(sys.base_prefix)')"; do
      case $kept/ in
        "$private"/*)
          mkdir -p "$host$kept"
          mount --bind "$kept" "$host$kept"
          ;;
      esac
    done
  done
  # The one that the cluster's own files lie beneath comes last: it hides them.
  case $dir/ in "$home"/*) order="/tmp $home" ;; *) order="$home /tmp" ;; esac
  for private in $order; do mount --rbind "$host$private" "$private"; done
  exec "$(PATH=$PATH:/usr/sbin command -v sshd)" -D -e -f /run/sshd/config
}

write_cluster_yaml() {
  local workers="" number options
  for number in $(seq 2 "$hosts"); do workers+="${workers:+, }$(address "$number")"; done
  options="--num-cpus=1 --object-store-memory=200000000"
  cat >"$dir/cluster.yaml" <<END
cluster_name: $name
provider: {type: local, head_ip: $(address 1), worker_ips: [$workers]}
auth: {ssh_user: root, ssh_private_key: $dir/key}
min_workers: $((hosts - 1))
max_workers: $((hosts - 1))
file_mounts: {~/.ray/auth_token: $dir/auth_token}
# A raylet gives its agents 15 seconds, not enough on a busy machine, and Ray starts a worker only once: tried again here.
head_start_ray_commands:
  - ray stop
  - ulimit -c 0; for try in 1 2 3 4 5; do ray start $options --head --port=6379 --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml && break; ray stop --force; done
worker_start_ray_commands:
  - ray stop
  - ulimit -c 0; for try in 1 2 3 4 5; do ray start $options --address=\$RAY_HEAD_IP:6379 && break; ray stop --force; done
END
}

wait_for_ray() { # until a raylet runs on each of these hosts
  local number tries
  for number in "$@"; do
    for tries in $(seq 150); do
      if on_host "$number" pgrep -x raylet >/dev/null; then continue 2; fi
      sleep 2
    done
    echo "error: no Ray on host $number; see \`bash scripts/local_cluster.sh ssh 1 tail /tmp/ray/session_latest/logs/monitor.out\`" >&2
    exit 1
  done
}

make_hosts() {
  require
  if [ -e "$dir" ]; then refuse "$dir is there: a cluster is up, or was not taken down; run \`bash scripts/local_cluster.sh down\` first"; fi
  mkdir -p -m 700 "$dir/shared" "$dir/client"
  echo "$hosts" >"$dir/hosts"
  echo "$auth_mode" >"$dir/auth_mode"
  cap_kind >"$dir/cap"
  (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/auth_token")
  ssh-keygen -q -t ed25519 -N '' -C "$name-cluster" -f "$dir/key"
  write_cluster_yaml
  make_bridge
  local number
  for number in $(numbers); do
    make_host "$number"
    boot_host "$number"
  done
  echo "$hosts hosts, each with one core and $memory bytes of memory ($(cat "$dir/cap"))" >&2
}

up() {
  make_hosts
  if ! client up -y "$dir/cluster.yaml" >"$dir/ray-up.log" 2>&1; then
    tail -20 "$dir/ray-up.log" >&2
    exit 1
  fi
  wait_for_ray $(numbers)
  cat >"$dir/environment" <<END
export RAY_AUTH_MODE=$auth_mode RAY_AUTH_TOKEN_PATH=$dir/auth_token RAY_TMPDIR=$dir/client RAY_UP_enable_autoscaler_v2=0
END
  cat <<END
$hosts nodes have joined. The folder all of them see is $dir/shared.
  source $dir/environment
  lmray cluster check $dir/cluster.yaml
  lmray submit --cluster $dir/cluster.yaml --root $dir/shared/lmray-out -- lmray quickstart
END
}

status() {
  [ -e "$dir/hosts" ] || refuse "no cluster in $dir; bash scripts/local_cluster.sh up"
  local number used
  for number in $(numbers); do
    used=$(cat "/sys/fs/cgroup/$name-h$number/memory.current" "/sys/fs/cgroup/memory/$name-h$number/memory.usage_in_bytes" 2>/dev/null || true)
    used="${used:-?}"
    if ! on_host "$number" true 2>/dev/null; then
      echo "host $number $(address "$number") down"
    elif on_host "$number" "pgrep -x raylet >/dev/null"; then
      echo "host $number $(address "$number") up, Ray runs, $used of $memory bytes"
    else
      echo "host $number $(address "$number") up, Ray does not run, $used of $memory bytes"
    fi
  done
}

kill_host() {
  [ -e "$dir/h$1/pid" ] || refuse "no host $1 in $dir; there are $(cat "$dir/hosts")"
  ip link set "$name-v$1" down
  kill -9 "$(cat "$dir/h$1/pid")" 2>/dev/null || true
  rm -rf "$dir/h$1/tmp/ray"
}

start_host() {
  [ -e "$dir/h$1/pid" ] || refuse "no host $1 in $dir; there are $(cat "$dir/hosts")"
  ! on_host "$1" true 2>/dev/null || refuse "host $1 is up already"
  boot_host "$1"
}

control_socket() { # where Ray's client keeps an ssh connection to this cluster for ten seconds
  echo "/tmp/ray_ssh_$(id -un | tr -d '\n' | sha256sum | cut -c1-10)/$(printf %s "$name" | sha256sum | cut -c1-10)"
}

namespaces() { ip netns list | grep -oE "^$name-h[0-9]+\\b" || true; }

links() { ip -o link | grep -oE " $name-(v[0-9]+|br)\\b" || true; }

cgroups() { find /sys/fs/cgroup /sys/fs/cgroup/memory /sys/fs/cgroup/cpu -maxdepth 1 -name "$name-h[0-9]*" 2>/dev/null || true; }

inodes() { # of the network namespaces: their processes have them, also when the names are gone
  local namespace
  for namespace in $(namespaces); do stat -Lc %i "/run/netns/$namespace"; done
}

processes() { # processes INODE...: the ids of those that live in these network namespaces
  local inode
  for inode in "$@"; do
    find /proc/[0-9]*/ns/net -maxdepth 0 -lname "net:\[$inode\]" 2>/dev/null | cut -d/ -f3 || true
  done
}

down() {
  require
  local socket namespaces_were process namespace link group tries left
  socket=$(control_socket)
  namespaces_were=$(inodes)
  for tries in $(seq 100); do # again and again: one may have started another meanwhile
    [ -n "$(processes $namespaces_were)" ] || break
    for process in $(processes $namespaces_were); do kill -9 "$process" 2>/dev/null || true; done
    sleep 0.1
  done
  for namespace in $(namespaces); do ip netns del "$namespace"; done
  # The kernel takes a dead namespace's links away a moment later, and may do so between these two lines.
  for link in $(links); do ip link del "$link" 2>/dev/null || true; done
  for group in $(cgroups); do
    for tries in $(seq 100); do
      rmdir "$group" 2>/dev/null && break
      sleep 0.1
    done
  done
  for socket in "$socket"/*; do
    [ ! -S "$socket" ] || ssh -o ControlPath="$socket" -O exit - 2>/dev/null || true
  done
  rm -rf "$(control_socket)"
  rmdir "$(dirname "$(control_socket)")" 2>/dev/null || true
  rm -rf "$dir"
  left=$(processes $namespaces_were && namespaces && links && cgroups && find "$dir" "$(control_socket)" -maxdepth 0 2>/dev/null) || true
  if [ -n "$left" ]; then
    echo "error: left behind:" $left >&2
    exit 1
  fi
  echo "nothing of the cluster is left: no process, namespace, link, cgroup or file" >&2
}

case ${1:-} in
  up | down | status) "$1" ;;
  hosts) make_hosts ;;
  kill | start) [ $# = 2 ] || { sed -n '2,21p' "$0" >&2; exit 2; }; "$1_host" "$2" ;;
  ssh) shift; on_host "$@" ;;
  _init) init "$2" ;;
  *) sed -n '2,21p' "$0" >&2; exit 2 ;;
esac
