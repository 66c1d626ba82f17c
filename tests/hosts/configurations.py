"""What stands in the files of a host of the rig."""

from __future__ import annotations

SSHD = """\
ListenAddress {address}:{port}
HostKey {at}/etc/ssh/ssh_host_ed25519_key
PidFile {at}/run/sshd.pid
AuthorizedKeysFile {keys}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM {pam}
StrictModes {strict}
LogLevel VERBOSE
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
"""

NGINX = """\
{user}worker_processes 1;
pid {at}/run/nginx.pid;
error_log {at}/var/log/nginx/error.log notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {at}/var/lib/nginx/body;
    proxy_temp_path {at}/var/lib/nginx/proxy;
    fastcgi_temp_path {at}/var/lib/nginx/fastcgi;
    uwsgi_temp_path {at}/var/lib/nginx/uwsgi;
    scgi_temp_path {at}/var/lib/nginx/scgi;
    server_names_hash_bucket_size 128;
    server_names_hash_max_size 8192;
    default_type text/plain;
    server {{
        listen {http} default_server;
        server_name _;
        return 404;
    }}
    include {at}/etc/nginx/conf.d/*.conf;
    include {at}/etc/nginx/sites-enabled/*.conf;
}}
"""

SITE = """\
server {{
    listen {http};
    server_name {server_names};
    {snippet}
    location / {{ return 200 "{app} on {host}\\n"; }}
}}
"""
