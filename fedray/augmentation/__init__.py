"""What a server does about labels that clients lack: who reports what, which pictures are painted, and how
good they are."""
