package backend

import "golang.org/x/sys/unix"

// networkFS names the network file system that dir is on; "" for a local one.
func networkFS(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return ""
	}
	switch int64(uint32(st.Type)) {
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "SMB"
	case unix.CEPH_SUPER_MAGIC:
		return "Ceph"
	case unix.AFS_SUPER_MAGIC:
		return "AFS"
	case unix.V9FS_MAGIC:
		return "9P"
	case 0x0BD00BD0: // LL_SUPER_MAGIC of the Lustre client, which the unix package lacks
		return "Lustre"
	}
	return ""
}
