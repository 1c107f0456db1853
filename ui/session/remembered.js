// Keeps a viewer's settings in a cookie of this browser: the next page, and the next start of the app, begin with them.

export default function ({ data }) {
  const kept = document.cookie.split("; ").find((each) => each.startsWith(`${data.name}=`));
  if (kept === `${data.name}=${data.value}`) return;
  document.cookie = `${data.name}=${data.value}; path=/; max-age=31536000; SameSite=Strict`;
}
