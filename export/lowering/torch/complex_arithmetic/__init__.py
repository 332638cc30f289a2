"""Complex numbers and Fourier transforms of any module, in real arithmetic."""
