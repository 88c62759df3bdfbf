"""No users: anyone who can reach the service may call it. `auth=users` adds them."""
