#!/bin/bash
# First process of a guest of tests/hosts, in user-mode Linux. The kernel's command line sets these variables:
#   FOLDER    the session's files on this machine: keys and this script
#   PACKAGES  the folder that scripts/install_hosts.sh fills
#   GUEST     the guest's name: h1, h2 or srv
#   ADDRESS   the last number of its addresses
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=~root

# The root is this machine's, read-only. Lay the packages and a tmpfs over it, and start again there.
enter_overlay() {
  mount -t proc proc /proc
  mount -t tmpfs tmpfs /mnt
  mkdir /mnt/{packages,upper,work,system}
  # A second mount: overlayfs refuses a layer that is inside another one.
  mount -t hostfs -o "$PACKAGES" none /mnt/packages
  overlay=$PACKAGES/usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko
  (LD_LIBRARY_PATH=$(echo "$PACKAGES"/usr/lib/*-linux-gnu) && export LD_LIBRARY_PATH &&
    exec -a insmod "$PACKAGES/usr/bin/kmod" "$overlay")
  mount -t overlay -o lowerdir=/mnt/packages:/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/system
  cd /mnt/system || exit
  mkdir -p old
  pivot_root . old
  exec chroot . /bin/bash "$FOLDER/guest.sh" services
}

mount_all() {
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t devtmpfs devtmpfs /dev
  mkdir -p /dev/pts /dev/shm
  mount -t devpts devpts /dev/pts
  mount -t tmpfs tmpfs /dev/shm
  mount -t tmpfs tmpfs /run
  ln -sf /proc/self/fd /dev/fd
  mkdir -p /run/sshd /run/rpcbind /lib/modules
  ln -sfn "/usr/lib/uml/modules/$(uname -r)" "/lib/modules/$(uname -r)"
}

# vec0 is the network of the cluster, which tests cut; vec1 is how the tests reach the guest.
set_up_network() {
  hostname "$GUEST"
  ip link set lo up
  ip address add "10.77.0.$ADDRESS/24" dev vec0
  ip address add "10.77.1.$ADDRESS/24" dev vec1
  ip link set vec0 up
  ip link set vec1 up
  printf '%s\n' '127.0.0.1 localhost' '10.77.0.1 h1' '10.77.0.2 h2' '10.77.0.10 srv' >/etc/hosts
}

start_sshd() {
  rm -f ~root/.bashrc  # the guest's own copy: a user's start-up file may take seconds in every ssh
  grep -q '^sshd:' /etc/passwd || echo 'sshd:x:74:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd
  grep -q '^statd:' /etc/passwd || echo 'statd:x:75:65534::/var/lib/nfs:/usr/sbin/nologin' >>/etc/passwd
  grep -q '^_rpc:' /etc/passwd || echo '_rpc:x:76:65534::/run/rpcbind:/usr/sbin/nologin' >>/etc/passwd
  # A lost host ends the ssh that mpirun waits for, after 15 s.
  printf '%s\n' 'Host *' ' StrictHostKeyChecking no' ' UserKnownHostsFile /dev/null' ' LogLevel ERROR' \
    ' ServerAliveInterval 5' ' ServerAliveCountMax 3' " IdentityFile $FOLDER/key" >/etc/ssh/ssh_config
  /usr/sbin/sshd -f /dev/null -h "$FOLDER/key" -o "AuthorizedKeysFile=$FOLDER/key.pub" -o UsePAM=no -o StrictModes=no \
    -o UseDNS=no -o PidFile=none -o MaxStartups=100 -E /run/sshd.log
}

start_server() {
  modprobe ext4
  # NFS 4 grants no locks either until lockd's grace period has ended: 3 s, not 50.
  modprobe lockd nlm_timeout=3 nlm_grace_period=3
  modprobe nfsd
  mkdir -p /export /proc/fs/nfsd /var/lib/nfs/rpc_pipefs /var/lib/nfs/nfsdcld
  mount /dev/ubda /export
  mount -t nfsd nfsd /proc/fs/nfsd
  mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
  # A client that is gone gives its locks back after 10 s, not 90.
  echo 10 >/proc/fs/nfsd/nfsv4leasetime
  echo 10 >/proc/fs/nfsd/nfsv4gracetime
  echo '/export *(rw,no_root_squash,sync,no_subtree_check,fsid=0)' >/etc/exports
  rpcbind -w
  rpc.statd --no-notify
  nfsdcld
  exportfs -ra
  rpc.mountd
  rpc.nfsd 4
}

start_client() {
  modprobe nfsv4
  modprobe nfsv3
  rpcbind -w
  rpc.statd --no-notify
}

[ "${1:-}" = services ] || enter_overlay
mount_all
set_up_network
start_sshd
case $GUEST in srv) start_server ;; *) start_client ;; esac
echo "guest $GUEST is ready"
while :; do
  sleep 1000 &
  wait
done
