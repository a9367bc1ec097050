"""placeholder"""
def single(g,r,n): return []
def array(g,r,n): return []
